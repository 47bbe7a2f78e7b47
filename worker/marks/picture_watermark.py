"""The watermark of pictures: in their brightness, from 64 pixels a side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydantic import JsonValue

from db.errors import BadInput
from worker.marks.base import NOT_APPLICABLE, Mark, Marking, Reading, Stage, unreadable
from worker.marks.watermarks import pictures
from worker.marks.watermarks.dither import Detection, Numbers
from worker.marks.watermarks.readings import PURPOSE, Found, by_chance, read_by_keys
from worker.media.samples.containers import SampleRecord
from worker.media.sources.image_files import decode_image

if TYPE_CHECKING:
    from worker.keys.keyring import Keyring
    from worker.media.base import Medium

LEVEL = 1e-6  # p-value up to which a picture counts as marked
MOST_ENLARGED = 2  # times, of a copy of the largest sample, of which each pixel is read
Test = Callable[[Numbers, bytes], Detection]  # of brightness, by a secret
TESTS: tuple[Test, ...] = (pictures.detect, pictures.detect_cropped)
NO_PICTURE, TOO_SMALL = "not a picture", f"under {pictures.LEAST_SIDE} pixels a side"


class PictureWatermark(Mark):
    """See `worker.marks.watermarks.pictures`."""

    name = "picture_watermark"
    stage = Stage.CONTENT
    purposes = (PURPOSE,)

    def misfit_of_job(self, marking: Marking) -> str:
        """Small pictures have too few waves."""
        if marking.medium.watermark != self.name:
            return NO_PICTURE
        return TOO_SMALL if marking.shape.size < pictures.LEAST_SIDE else ""

    def misfit(self, sample: SampleRecord, marking: Marking) -> str:
        """See `misfit_of_job`."""
        if isinstance(sample.output, str) or sample.output.ndim != 3:
            return NO_PICTURE
        return TOO_SMALL if min(sample.output.shape[:2]) < pictures.LEAST_SIDE else ""

    def apply_content(
        self, samples: Sequence[SampleRecord], marking: Marking
    ) -> Sequence[SampleRecord]:
        """The pictures with the mark, all at once."""
        batch = np.stack([np.asarray(each.output) for each in samples])
        marked = pictures.embed(batch, marking.keys.secret(PURPOSE))
        return [replace(each, output=made) for each, made in zip(samples, marked, strict=True)]

    def expected(self, sample: SampleRecord, marking: Marking) -> Mapping[str, JsonValue]:
        """The mark of the job's own key."""
        return {"key": marking.keys.current(PURPOSE).id}

    def read(self, data: bytes, keys: "Keyring", medium: "Medium") -> Reading:
        """A picture in any format and size; a whole one is tested before any part of a larger."""
        if medium.watermark != self.name:
            return Reading(self.name, NOT_APPLICABLE, why="a watermark of pictures")
        try:
            brightness = _brightness(data)
        except BadInput as error:
            return unreadable(self.name, error)
        tests = [partial(_found, test, brightness) for test in TESTS]
        return read_by_keys(self.name, keys, tests, level=LEVEL)

    def read_back(
        self, samples: Sequence[SampleRecord], data: Sequence[bytes], marking: Marking
    ) -> Iterator[Reading | None]:
        """Pictures that the job's own key has marked beyond doubt are not tested any further."""
        for first in range(0, len(data), pictures.AT_ONCE):
            some = data[first : first + pictures.AT_ONCE]
            for each, marked in zip(some, _marked(some, marking.keys), strict=True):
                yield None if marked else self.read(each, marking.keys, marking.medium)


def _marked(data: Sequence[bytes], keys: "Keyring") -> Sequence[bool]:
    """Which pictures, all of one size, the current key has marked beyond doubt."""
    tests = len(keys.all(PURPOSE)) * len(TESTS)
    try:
        brightness = np.stack([*map(_brightness, data)])
    except BadInput:
        return [False] * len(data)
    found = pictures.detect_unchanged(brightness, keys.secret(PURPOSE))
    return [by_chance(test.p_value, tests) <= LEVEL for test in found]


def _brightness(data: bytes) -> Numbers:
    """The luminance (H, W) of a picture in any format; `BadInput` if it cannot be read."""
    return pictures.luminance(decode_image(data, _pixels))


def _pixels(image: Image.Image) -> Numbers:
    """The pixels; of a picture that is far larger than samples are, means of several.

    The waves are slow: they are the same there, in a fraction of the time and memory.
    """
    times = max(image.size) // pictures.LARGEST
    whole = image.convert("RGB")
    return np.asarray(whole.reduce(times) if times > MOST_ENLARGED else whole, np.float64)


def _found(test: Test, brightness: Numbers, secret: bytes) -> Found:
    found = test(brightness, secret)
    return found.p_value, {"z": round(found.z, 2), "coefficients": found.coefficients}


MARK = PictureWatermark()
