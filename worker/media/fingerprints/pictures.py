"""Fingerprints of pictures, and how far a picture is from being a cropped copy of another."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.cleaning.alike.images import MIN_CONTRAST
from worker.cleaning.recipe import PAD
from worker.media.fingerprints.bits import Fingerprints
from worker.media.fingerprints.grids import (
    BINS,
    MIDDLE,
    SPANS,
    Grid,
    Span,
    bits_of,
    cosines_over,
    finer,
    frequencies,
    means_over,
)
from worker.media.sources.image_files import decode_image
from worker.media.sources.recognition import LUMA
from worker.media.sources.squares import resized

SIDE = 64  # pixels of a file's picture at most
FEWEST = 8  # parts of each axis of the middle, in which pictures are compared
DETAIL = 0.57  # such parts to a pixel of the smallest side: finer detail depends on the filter
PLAIN = 1.0  # levels of 255: a standard deviation, below which a picture has no fingerprint
ALIKE = 0.09  # root mean square difference to contrast, up to which a picture is a copy
STEPS = (0.025, 0.0125)  # by which the best crop is then looked for more closely

Images = npt.NDArray[np.uint8]  # (N, H, W, 1 or 3)
Crop = tuple[Span, Span]  # from the top and from the left


def of_pictures(images: Images) -> Fingerprints:
    """A fingerprint of each picture, all of one shape."""
    grey = brightness(images)
    rows, columns = (cosines_over(points, MIDDLE) for points in grey.shape[1:])
    return _bits(frequencies(grey, [rows], [columns]))


def of_picture_file(data: bytes) -> Fingerprints:
    """Those of a picture in any format, one for each way it may have been cropped; `BadInput`."""
    grey = read_brightness(data)
    rows, columns = ([cosines_over(points, span) for span in SPANS] for points in grey.shape)
    return _bits(frequencies(grey[None], rows, columns))


def cropped_distance(sample: Grid, copy: Grid) -> float:
    """How far a picture (H, W) is from being a crop of another; 1 is the most of a copy.

    The root mean square difference of the sample's middle to contrast, at the best crop.
    """
    bins = min(BINS, max(FEWEST, int(min(sample.shape + copy.shape) * DETAIL)))
    middle = _middles(sample, [MIDDLE], [MIDDLE], bins)[0, 0]
    best, (rows, columns) = _nearest(middle, copy, SPANS, SPANS)
    for step in STEPS:
        nearer = _nearest(middle, copy, [*finer(rows, step)], [*finer(columns, step)])
        best, (rows, columns) = min((best, (rows, columns)), nearer)
    return best / (ALIKE * max(float(middle.std()), MIN_CONTRAST))


def brightness(images: Images) -> Grid:
    """Pictures (..., 1 or 3) as (...)."""
    pixels = images.astype(np.float32)
    return pixels[..., 0] if images.shape[-1] == 1 else np.asarray(pixels @ LUMA)


def read_brightness(data: bytes) -> Grid:
    """A picture in any format as (H, W), neither more than `SIDE`. Raises `BadInput`."""

    def fitted(image: Image.Image) -> Images:
        return resized(image, min(SIDE, max(image.size)), "RGB", PAD)

    return brightness(decode_image(data, fitted))


def _bits(low: Grid) -> Fingerprints:
    low[:, 0] = 0  # the mean
    return bits_of(low, plain=PLAIN)


def _nearest(
    middle: Grid, copy: Grid, rows: Sequence[Span], columns: Sequence[Span]
) -> tuple[float, Crop]:
    """The least root mean square difference of a middle to that of a copy, and its crop."""
    found = _middles(copy, rows, columns, len(middle))
    apart = np.sqrt(np.square(found - middle).mean(axis=(2, 3)))
    row, column = np.unravel_index(int(apart.argmin()), apart.shape)
    return float(apart[row, column]), (rows[int(row)], columns[int(column)])


def _middles(grey: Grid, rows: Sequence[Span], columns: Sequence[Span], bins: int) -> Grid:
    """The means of the spans of a picture, (rows, columns, bins, bins)."""
    height, width = grey.shape
    bands = np.stack([means_over(height, span, bins) @ grey for span in rows])
    turned = np.stack([means_over(width, span, bins).T for span in columns])
    return np.asarray(bands[:, None] @ turned[None], np.float32)
