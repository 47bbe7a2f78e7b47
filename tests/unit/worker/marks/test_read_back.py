"""What reads a finished file back in less time passes nothing that reading it would not."""

import dataclasses

import pytest

from db.errors import MarkFailed
from tests.keyrings import add_key, keyring_of, settings_in
from tests.unit.worker.marks.kit import ORIGIN
from tests.unit.worker.marks.watermarks.test_pictures import landscapes
from worker.data.dataset import Shape
from worker.mark_profile import Profile
from worker.marks import apply, c2pa, find_mark
from worker.marks.apply import Marker
from worker.marks.base import Marking
from worker.marks.credentials import fresh_signatures
from worker.marks.credentials.fresh_signatures import FreshSignatures
from worker.marks.profiles import complete
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord

MEDIUM = find_medium("image")
SHAPE = Shape("image", ("cat",), size=64, channels=3)


@pytest.fixture
def marking(database, tmp_path):
    """That of a job with all marks of pictures, and a licence."""
    c2pa.forget_patterns()
    settings = settings_in(tmp_path / "home")
    for purpose in ("signing", "watermark"):
        add_key(database, settings, purpose, name="Example Ltd")
    marks = ("record", "iptc", "aigc", "licence", "c2pa", "picture_watermark")
    asked = Profile(name="p", marks=marks, settings={"licence": {"copyright": "© Ann"}})
    return Marking(complete(asked, MEDIUM), keyring_of(database, settings), SHAPE)


def samples(count=3):
    shared = ORIGIN.shared(label="cat")
    return [SampleRecord(n, each, shared) for n, each in enumerate(landscapes(count))]


def finished(marking, made):
    """Files that are marked, and read back by nobody yet."""
    read_back = Marker._read_back
    Marker._read_back = lambda *_: None
    try:
        return Marker(marking).encode(made, SHAPE)
    finally:
        Marker._read_back = read_back


def passed(marking, sample, data):
    """The marks that need not read a file: they know that it says what is expected."""
    return [
        name
        for name in marking.profile.marks
        if next(iter(find_mark(name).read_back([sample], [data], marking))) is None
    ]


def test_files_of_a_job_need_not_be_read_after_the_first(marking):
    made = samples()
    first, *others = finished(marking, made)
    passed(marking, made[0], first)
    for sample, data in zip(made[1:], others, strict=True):
        quick = passed(marking, sample, data)
        # each AIGC label has an id of its own, so that the tags of no two files are equal
        assert quick == ["c2pa", "picture_watermark", "record"]
    marking = dataclasses.replace(marking, profile=without(marking.profile, "aigc"))
    made = samples()
    first, *others = finished(marking, made)
    passed(marking, made[0], first)
    for sample, data in zip(made[1:], others, strict=True):
        assert passed(marking, sample, data) == list(marking.profile.marks)


def without(profile, mark):
    marks = tuple(each for each in profile.marks if each != mark)
    settings = {name: given for name, given in profile.settings.items() if name != mark}
    return profile.model_copy(update={"marks": marks, "settings": settings})


@pytest.mark.parametrize("left_out", [("aigc",), ("aigc", "c2pa", "picture_watermark")])
def test_what_all_marks_pass_without_reading_reads_as_expected(marking, left_out):
    """Whichever byte was changed since."""
    for mark in left_out:
        marking = dataclasses.replace(marking, profile=without(marking.profile, mark))
    made, names = samples(2), [*marking.profile.marks]
    first, data = finished(marking, made)
    passed(marking, made[0], first)
    assert passed(marking, made[1], data) == names
    for at in [*range(60), *range(60, len(data), 97), *range(len(data) - 20, len(data))]:
        changed = bytearray(data)
        changed[at] ^= 1
        if passed(marking, made[1], bytes(changed)) == names:
            for mark in map(find_mark, names):
                reading = mark.read(bytes(changed), marking.keys, MEDIUM)
                assert not apply._fault(reading, mark.expected(made[1], marking)), (mark.name, at)


def test_a_file_of_another_sample_is_not_passed(marking):
    made = samples()
    files = finished(marking, made)
    passed(marking, made[0], files[0])
    assert not {"record", "c2pa"} & {*passed(marking, made[1], files[2])}


def test_a_signature_needs_no_check_once_and_then_it_does(marking):
    made = samples()
    data = finished(marking, made)[1]
    assert "c2pa" in passed(marking, made[1], data)
    assert "c2pa" not in passed(marking, made[1], data)
    assert find_mark("c2pa").read(data, marking.keys, MEDIUM).state == "present"


def test_one_signature_in_so_many_is_checked_in_full(monkeypatch):
    monkeypatch.setattr(fresh_signatures, "CHECKED", 4)
    fresh = FreshSignatures()
    for number in range(12):
        fresh.add(number, b"file")
    assert [fresh.has(number, b"file") for number in range(12)] == [
        number % 4 != 0 for number in range(12)
    ]


def test_a_file_that_was_changed_is_not_fresh():
    fresh = FreshSignatures()
    for number in range(3):
        fresh.add(number, b"file")
    assert not fresh.has(1, b"fiLe")
    assert not fresh.has(1, b"file")  # asked once
    assert fresh.has(2, b"file")


def test_files_that_nobody_read_back_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(fresh_signatures, "KEPT_BYTES", 50)
    fresh = FreshSignatures()
    for number in [*range(100), *[3] * 100]:  # of several jobs, too
        fresh.add(number, b"ten bytes!")
        assert sum(map(len, fresh._made.values())) == fresh._bytes <= 50
    fresh.add(5, bytes(51))
    assert not fresh.has(5, bytes(51))


def test_a_library_that_signs_wrong_is_found(marking, monkeypatch):
    """The first signature of a pattern, and one of so many after it, are checked by the key."""
    made = samples(4)
    Marker(marking).encode(made, SHAPE)
    [pattern] = filter(None, c2pa._patterns.values())
    right = type(pattern.template.scheme).sign
    monkeypatch.setattr(
        type(pattern.template.scheme), "sign", lambda self, key, data: right(self, key, data + b"!")
    )
    monkeypatch.setattr(fresh_signatures, "CHECKED", 2)
    with pytest.raises(MarkFailed, match=r"c2pa of sample \d+ failed"):
        Marker(marking).encode(made, SHAPE)


def test_a_picture_without_the_watermark_is_read(marking, monkeypatch):
    monkeypatch.setattr("worker.marks.watermarks.pictures.AT_ONCE", 2)
    mark, made = find_mark("picture_watermark"), samples(3)
    plain = MEDIUM.encode(made, SHAPE)
    marked = MEDIUM.encode(mark.apply_content(made, marking), SHAPE)
    files = [marked[0], plain[1], marked[2]]
    readings = list(mark.read_back(made, files, marking))
    assert [each and each.state for each in readings] == [None, "absent", None]
    [reading, _] = mark.read_back(made[:2], [b"no picture", marked[0]], marking)
    assert reading.is_unread
