"""Copies of pictures are found by their fingerprints, and confirmed by content, however changed."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from db.errors import BadInput
from tests.drawings import strokes
from worker.data.dataset import Shape
from worker.media import find_medium
from worker.media.fingerprints.bits import BITS, decode, encode, fewest_bits
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import Origin

MEDIUM = find_medium("image")
SHARED = Origin("f", "m:1", "ab" * 32, 5, {}, 1, torch="0").shared()
COUNT = 100


def again(pixels: np.ndarray, form: str = "PNG", *, side: int = 0, box=None, **options) -> bytes:
    """A picture encoded again, of another side, or its part within fractions of its sides."""
    target, size = BytesIO(), len(pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if box:
        image = image.crop(tuple(round(edge * size) for edge in box))
    if side:
        image = image.resize((side, side))
    image.save(target, form, **options)
    return target.getvalue()


WAYS = {
    "JPEG of quality 75": {"form": "JPEG", "quality": 75},
    "half as large": {"side": 0.5},
    "three times as large": {"form": "JPEG", "side": 3, "quality": 90},
    "a tenth cut off on the left": {"box": (0.1, 0, 1, 1)},
    "a tenth cut off at the corner": {"box": (0, 0, 0.9, 0.9)},
    "a tenth cut off on all sides": {"box": (0.1, 0.1, 0.9, 0.9), "form": "JPEG", "quality": 75},
}


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (64, 3)])
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_nearest_to_its_sample_and_confirmed(size, channels, way):
    images = strokes(COUNT, size, channels, seed=size)
    rows = MEDIUM.fingerprints(list(images), Shape("image", size=size, channels=channels))
    options = WAYS[way] | {"side": round(WAYS[way].get("side", 0) * size)}
    for number in range(0, COUNT, 50):
        copy = again(images[number], **options)
        apart = fewest_bits(rows, MEDIUM.fingerprints_of_file(copy))
        assert number in np.argsort(apart, kind="stable")[:3], apart.min()
        nearest = np.argsort(apart, kind="stable")[:8]
        found = {place: MEDIUM.copy_distance(again(images[place]), copy) for place in nearest}
        assert min(found, key=found.__getitem__) == number, found
        assert found[number] <= 1, found
        assert sorted(found.values())[1] > 1, found


def test_a_picture_of_something_else_is_no_copy():
    images, others = (strokes(COUNT, side, 1, seed=side) for side in (28, 27))
    rows = MEDIUM.fingerprints(list(images), Shape("image", size=28, channels=1))
    for other in others[:20]:
        file = again(other, "JPEG")
        place = fewest_bits(rows, MEDIUM.fingerprints_of_file(file)).argmin()
        assert MEDIUM.copy_distance(again(images[place]), file) > 1


def test_neither_brightness_nor_contrast_counts():
    images = strokes(20, 28, 1, seed=28)
    shape = Shape("image", size=28, channels=1)
    pale = (images // 2 + 60).astype(np.uint8)
    apart = np.bitwise_count(MEDIUM.fingerprints(images, shape) ^ MEDIUM.fingerprints(pale, shape))
    assert apart.sum(axis=1).max() <= 8


def test_a_plain_picture_has_no_fingerprint_and_is_near_nothing():
    shape = Shape("image", size=8, channels=1)
    plain = MEDIUM.fingerprints([np.full((8, 8, 1), 90, np.uint8)] * 2, shape)
    assert not plain.any()
    assert not MEDIUM.fingerprints_of_file(again(np.full((8, 8, 1), 90, np.uint8))).any()
    assert fewest_bits(plain, plain).tolist() == [BITS, BITS]


def test_fingerprints_are_16_bytes_and_come_back():
    images = strokes(3, 16, 1, seed=16)
    rows = MEDIUM.fingerprints(images, Shape("image", size=16, channels=1))
    assert len(encode(rows)) == 48
    assert (decode(encode(rows)) == rows).all()
    with pytest.raises(BadInput):
        decode(b"12345")


def test_fingerprints_do_not_depend_on_the_batch():
    images = strokes(40, 28, 3, seed=28)
    shape = Shape("image", size=28, channels=3)
    whole = MEDIUM.fingerprints(images, shape)
    alone = np.concatenate([MEDIUM.fingerprints([image], shape) for image in images])
    assert (np.bitwise_count(whole ^ alone).sum(axis=1) <= 2).all()


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"text", bytes(100)])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(BadInput):
        MEDIUM.fingerprints_of_file(data)


def test_the_parts_of_a_sample_cover_it_and_show_damage():
    [sample] = MEDIUM.encode(
        [SampleRecord(0, strokes(1, 16, 1, seed=16)[0], SHARED)], Shape("image")
    )
    parts = list(MEDIUM.parts(sample))
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == len(sample)
    assert {"the pixels", "the record"} <= {part.name for part in parts}
    assert all(part.intact for part in parts)
    [pixels] = [part for part in parts if part.name == "the pixels"]
    changed = bytearray(sample)
    changed[pixels.start + 10] ^= 1
    damaged = [part for part in MEDIUM.parts(bytes(changed)) if not part.intact]
    assert [part.name for part in damaged] == ["the pixels"]
    assert [part.name for part in MEDIUM.parts(sample + b"more")][-1] == "what follows"
    for cut in range(len(sample)):  # never an error
        assert list(MEDIUM.parts(sample[:cut])) is not None
