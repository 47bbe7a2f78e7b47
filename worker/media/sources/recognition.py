"""Recognising a picture that was encoded again: as JPEG or WebP, larger, smaller, without comments.

Compared as near-duplicates of a dataset are (`worker.cleaning.alike.images`): by the lowest
frequencies first, then by the pixels. Of a picture that is not square, the middle is compared.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.cleaning.alike.images import DISTANCE, MIN_CONTRAST, Vectors, perceptual_hashes
from worker.media.samples.png import Pixels, read_pixels
from worker.media.sources.image_files import decode_image
from worker.media.sources.squares import resized

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, as in JPEG
LARGEST = 1024  # pixels of the side of a file's picture that is compared at its own size
FILTERS = (
    *(Image.Resampling.NEAREST, Image.Resampling.BOX, Image.Resampling.BILINEAR),
    *(Image.Resampling.BICUBIC, Image.Resampling.LANCZOS),
)
SIDE = 64  # pixels of a file's picture for its sketch; sketches of all sizes are comparable


def sketches(samples: Sequence[bytes]) -> Vectors:
    """The lowest frequencies of PNG samples of one shape."""
    pixels = np.stack([read_pixels(each) for each in samples])
    return perceptual_hashes(pixels.reshape(*pixels.shape[:3], -1))[1]


def sketch_of_file(data: bytes) -> Vectors:
    """The lowest frequencies of an image in any format, (1, 64); `BadInput` if it is none."""
    pixels = decode_image(data, lambda image: resized(image, SIDE, "RGB"))
    return perceptual_hashes(pixels[None])[1]


def difference(sample: bytes, data: bytes) -> float:
    """The root mean square difference of the pixels to contrast; 1 is that of near-duplicates.

    At the sample's size, and at the file's: whoever changed it used one of a few filters.
    """
    mine = read_pixels(sample)
    mode = "L" if mine.ndim == 2 else "RGB"
    own, side = len(mine), decode_image(data, lambda image: min(image.size))
    found = [_apart(mine, decode_image(data, lambda image: resized(image, own, mode)))]
    if own != side <= LARGEST:
        theirs = decode_image(data, lambda image: resized(image, side, mode))
        remade = (Image.fromarray(mine).resize((side, side), each) for each in FILTERS)
        found += [_apart(np.asarray(each), theirs) for each in remade]
    return min(found)


def _apart(one: Pixels, other: Pixels) -> float:
    """Colours may be twice as far apart as brightness: JPEG and WebP halve their resolution."""
    if one.ndim == 2:
        return _difference(one, other[..., 0])
    return max(_difference(one @ LUMA, other @ LUMA), _difference(one, other) / 2)


def _difference(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    here, there = one.astype(np.float32), other.astype(np.float32)
    contrast = max(float(here.std()), float(there.std()), MIN_CONTRAST)
    return float(np.sqrt(np.mean((here - there) ** 2))) / (DISTANCE * contrast)
