"""Leaves out items that show nothing: images of one colour, silence, texts of white space."""

from typing import Any

import numpy as np
import numpy.typing as npt

from worker.cleaning.rows import texts_of
from worker.cleaning.steps import Step

FLAT = 2  # levels of 255 between the darkest and the brightest pixel of an image of one colour
SILENT = 1  # of 32768


class BlankImages(Step):
    """Leaves out images whose pixels all are equal, within `FLAT`, in each channel."""

    name = "blank"

    def __call__(self, content: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A uint8 (H, W, C) image as it is."""
        if int(np.ptp(content, axis=(0, 1)).max()) <= FLAT:
            raise self.refuse("blank: all pixels have one colour")
        return content


class BlankSounds(Step):
    """Leaves out sounds that are silent or stand still."""

    name = "blank"

    def __call__(self, content: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """An int16 (T,) sound as it is."""
        if int(content.max()) - int(content.min()) <= SILENT:
            raise self.refuse("blank: silence")
        return content


class BlankTexts(Step):
    """Leaves out rows whose texts are white space alone."""

    name = "blank"

    def __call__(self, content: dict[str, Any]) -> dict[str, Any]:
        """A row as it is."""
        if not any(text.strip() for text in texts_of(content)):
            raise self.refuse("blank: white space only")
        return content
