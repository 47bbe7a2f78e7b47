"""Pictures that were encoded again are known by their look, and others are not taken for them."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from worker.data.dataset import Shape
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord
from worker.media.samples.record import Origin

MEDIUM = find_medium("image")
SHARED = Origin("f", "m:1", "ab" * 32, 5, {}, 1).shared()


def pictures(channels: int, count: int = 60, size: int = 28) -> list[bytes]:
    """Strokes on a dark ground, as digits are."""
    draw = np.random.default_rng(channels)
    y, x = np.mgrid[:size, :size] / size
    images = np.zeros((count, size, size, channels), np.uint8)
    for image in images:
        for _ in range(3):
            across, down, angle = draw.uniform(0.2, 0.8), draw.uniform(0.2, 0.8), draw.uniform(0, 3)
            along = (x - across) * np.cos(angle) + (y - down) * np.sin(angle)
            beside = (y - down) * np.cos(angle) - (x - across) * np.sin(angle)
            stroke = np.exp(-((along / 0.3) ** 2) - (beside / 0.05) ** 2)
            colour = draw.uniform(120, 255, channels)
            np.maximum(image, (stroke[..., None] * colour).astype(np.uint8), out=image)
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
