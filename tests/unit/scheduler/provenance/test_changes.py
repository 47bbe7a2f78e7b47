"""What of a file changed is told in parts and bytes."""

from collections.abc import Iterator
from io import BytesIO
from types import SimpleNamespace

import numpy as np
from PIL import Image

from scheduler.provenance.changes import MOST, Change, find_changes, find_damage, same_content
from worker.data.dataset import Shape
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.parts import SIGNATURE, Part
from worker.media.samples.record import Origin

IMAGE, TEXT = find_medium("image"), find_medium("text")
SHARED = Origin("f", "m:1", "ab" * 32, 5, {}, 1, torch="0").shared()


def picture() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 1), np.uint8)
    [sample] = IMAGE.encode([SampleRecord(3, pixels, SHARED)], Shape("image", size=16))
    return sample


def text(words: str) -> bytes:
    [sample] = TEXT.encode([SampleRecord(3, words, SHARED)], Shape("text"))
    return sample


def part(data: bytes, name: str):
    [found] = [each for each in IMAGE.parts(data) if each.name == name]
    return found


def test_one_flipped_byte_is_named():
    sample = picture()
    at = part(sample, "the pixels").start + 20
    changed = bytearray(sample)
    changed[at] ^= 4
    expected = [Change("the pixels", "differs", at, at + 1)]
    assert find_changes(IMAGE, sample, bytes(changed)) == expected
    assert [each.part for each in find_damage(IMAGE, bytes(changed))] == ["the pixels"]
    assert not same_content(IMAGE, sample, bytes(changed))


def test_nothing_differs_in_the_sample_itself():
    assert find_changes(IMAGE, picture(), picture()) == []
    assert find_damage(IMAGE, picture()) == []


def test_stripped_metadata_is_missing_and_the_picture_the_same():
    sample, stripped = picture(), BytesIO()
    with Image.open(BytesIO(sample)) as image:
        plain = Image.fromarray(np.asarray(image))
    plain.save(stripped, "PNG")
    found = find_changes(IMAGE, sample, stripped.getvalue())
    assert {each.part for each in found if each.what == "missing"} == {
        "the record", "the text 'parameters'",
    }  # fmt: skip
    assert same_content(IMAGE, sample, stripped.getvalue())


def test_what_was_added_is_told():
    sample = picture()
    [added] = find_changes(IMAGE, sample, sample + b"more")
    assert added == Change("what follows", "added", len(sample), len(sample) + 4)


def test_a_longer_text_differs_where_it_differs():
    before, after = text("the old words here"), text("the quite new words here")
    [change] = find_changes(TEXT, before, after)
    assert change.part == "the text"
    assert after[change.start : change.stop] == b"quite new"


def test_a_part_that_was_emptied_differs_nowhere_in_particular():
    [change] = find_changes(TEXT, text("abc"), text(""))
    assert (change.what, change.start) == ("differs", change.stop)


def test_very_many_changes_are_not_all_told():
    sample = picture()
    found = find_changes(IMAGE, sample, bytes(len(sample)))
    assert 0 < len(found) <= 20


def test_of_a_file_of_very_many_damaged_parts_the_first_are_told() -> None:
    bad = b"\0\0\0\0abCd\0\0\0\0"

    def parts(data: bytes) -> Iterator[Part]:
        for number, part in enumerate(IMAGE.parts(data)):
            assert number < 100
            yield part

    medium = SimpleNamespace(claims=IMAGE.claims, parts=parts)
    assert len(find_damage(medium, SIGNATURE + bad * 1000)) == MOST
