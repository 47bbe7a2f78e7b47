"""Many images on one sheet, for people to look at; images made smaller."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

LARGEST = 64  # pixels a side of what `shrink` returns
GAP = 2  # pixels between images
MIN_WIDTH = 64  # pixels of an image on the sheet
BACKGROUND = 64  # grey level, of 255


def shrink(
    images: Sequence[npt.NDArray[Any] | str], *, size: int, channels: int
) -> npt.NDArray[np.uint8]:
    """Images uint8 (size, size, channels) as one array, of at most `LARGEST` pixels a side."""
    side = min(size, LARGEST)
    smaller = np.empty((len(images), side, side, channels), np.uint8)
    for place, each in enumerate(images):
        image = np.asarray(each)
        if side < size:
            picture = Image.fromarray(image.squeeze(-1) if channels == 1 else image)
            resized = picture.resize((side, side), Image.Resampling.BOX)
            image = np.asarray(resized).reshape(side, side, channels)
        smaller[place] = image
    return smaller


def contact_sheet(rows: Sequence[Sequence[npt.NDArray[Any]]]) -> Image.Image:
    """Rows of uint8 (H, W, C) images of one shape; small ones are enlarged by a whole factor."""
    height, width, channels = rows[0][0].shape
    columns = max(map(len, rows))
    size = (len(rows) * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels)
    sheet = np.full(size, BACKGROUND, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = GAP + y * (height + GAP), GAP + x * (width + GAP)
            sheet[top : top + height, left : left + width] = image
    drawn = Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
    factor = max(1, MIN_WIDTH // width)
    return drawn.resize((drawn.width * factor, drawn.height * factor), Image.Resampling.NEAREST)
