"""Recognising a picture that was encoded again: as JPEG or WebP, larger, smaller, without comments.

Compared as near-duplicates of a dataset are (`worker.cleaning.alike.images`): by the lowest
frequencies first, then by the pixels. Of a picture that is not square, the middle is compared.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from worker.cleaning.alike.images import DISTANCE, MIN_CONTRAST, Vectors, perceptual_hashes
from worker.media.samples.png import read_pixels
from worker.media.sources.image_files import decode_image, to_square

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, as in JPEG
SIDE = 64  # pixels of a file's picture for its sketch; sketches of all sizes are comparable


def sketches(samples: Sequence[bytes]) -> Vectors:
    """The lowest frequencies of PNG samples of one shape."""
    pixels = np.stack([read_pixels(each) for each in samples])
    return perceptual_hashes(pixels.reshape(*pixels.shape[:3], -1))[1]


def sketch_of_file(data: bytes) -> Vectors:
    """The lowest frequencies of an image in any format, (1, 64); `BadInput` if it is none."""
    pixels = decode_image(data, lambda image: to_square(image, SIDE, "RGB"))
    return perceptual_hashes(pixels[None])[1]


def difference(sample: bytes, data: bytes) -> float:
    """The root mean square difference of the pixels to contrast; 1 is that of near-duplicates.

    Colours may differ by twice as much as brightness: JPEG and WebP halve their resolution.
    """
    mine = read_pixels(sample).astype(np.float32)
    size, mode = len(mine), "L" if mine.ndim == 2 else "RGB"
    theirs = decode_image(data, lambda image: to_square(image, size, mode)).astype(np.float32)
    if mine.ndim == 2:
        return _apart(mine, theirs[..., 0])
    return max(_apart(mine @ LUMA, theirs @ LUMA), _apart(mine, theirs) / 2)


def _apart(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    contrast = max(float(one.std()), float(other.std()), MIN_CONTRAST)
    return float(np.sqrt(np.mean((one - other) ** 2))) / (DISTANCE * contrast)
