"""Pictures that were encoded again are known by their look, and others are not taken for them."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.drawings import strokes
from worker.data.dataset import Shape
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import Origin

MEDIUM = find_medium("image")
SHARED = Origin("f", "m:1", "ab" * 32, 5, {}, 1).shared()


def pictures(channels: int, count: int = 60, size: int = 28) -> list[bytes]:
    images = strokes(count, size, channels, seed=channels)
    records = [SampleRecord(i, image, SHARED) for i, image in enumerate(images)]
    return MEDIUM.encode(records, Shape("image", size=size, channels=channels))


def again(sample: bytes, form: str, *, side: int | None = None, **options) -> bytes:
    target = BytesIO()
    with Image.open(BytesIO(sample)) as image:
        shown = image.resize((side, side)) if side else image
        shown.save(target, form, **options)
    return target.getvalue()


WAYS = {
    "JPEG of quality 75": {"form": "JPEG", "quality": 75},
    "WebP": {"form": "WEBP", "quality": 80},
    "four times as large": {"form": "JPEG", "side": 112, "quality": 90},
    "half as large": {"form": "PNG", "side": 14},
    "a PNG without a record": {"form": "PNG"},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_the_nearest_sample_is_the_one_that_was_encoded_again(channels, way):
    samples = pictures(channels)
    known = MEDIUM.sketches(samples).astype(int)
    for number in range(0, 60, 20):
        data = again(samples[number], **WAYS[way])
        apart = np.square(known - MEDIUM.sketch_of_file(data)).sum(1)
        assert apart.argmin() == number
        differences = [MEDIUM.difference(sample, data) for sample in samples]
        assert int(np.argmin(differences)) == number
        assert differences[number] <= 1
        assert sorted(differences)[1] > 1


@pytest.mark.parametrize("side", [8, 20, 64])
def test_noise_is_known_at_another_size(side):
    noise = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 1), np.uint8)
    records = [SampleRecord(i, image, SHARED) for i, image in enumerate(noise)]
    samples = MEDIUM.encode(records, Shape("image", size=16, channels=1))
    data = again(samples[7], "PNG", side=side)
    apart = np.square(MEDIUM.sketches(samples).astype(int) - MEDIUM.sketch_of_file(data)).sum(1)
    assert 7 in np.argsort(apart)[:3]
    assert apart[7] < (0.6 * 127) ** 2
    differences = [MEDIUM.difference(sample, data) for sample in samples]
    assert (int(np.argmin(differences)), differences[7] <= 1) == (7, True)
    assert sorted(differences)[1] > 1
