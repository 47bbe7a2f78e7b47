"""Many images on one sheet, for people to look at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

GAP = 2  # pixels between images
MIN_WIDTH = 64  # pixels of an image on the sheet
BACKGROUND = 64  # grey level, of 255


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
