"""Pictures made square and of one size: cropped, padded or stretched."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from worker.cleaning.recipe import CROP, PAD
from worker.cleaning.steps import StepReport

Pixels = npt.NDArray[np.uint8]  # (size, size, channels)

PADDING, WHITE = "white", 255  # as transparent parts become


@dataclass
class Squares:
    """Makes pictures square, as `fit` says, and counts those that were not.

    What is padded is padded last, so that cleaning sees the picture alone: one of a single colour
    is blank, whatever lies around it.
    """

    size: int
    mode: str
    fit: str = CROP
    seen: int = 0
    not_square: int = 0

    def of_image(self, image: Image.Image) -> Pixels:
        """A picture as (height, width, channels), in its place in the square: see `padded`."""
        width, height = image.size
        pixels = resized(image, self.size, self.mode, self.fit)
        self._count(width, height)  # a damaged one may be tried twice
        return pixels

    def of_array(self, pixels: Pixels) -> Pixels:
        """Like `of_image`, of an (H, W) or (H, W, 1 or 3) array; unchanged if it already fits."""
        self._count(*pixels.shape[:2])
        flat = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
        wanted = (self.size, self.size) if self.mode == "L" else (self.size, self.size, 3)
        if flat.shape == wanted:
            return flat.reshape(self.size, self.size, -1)
        return resized(Image.fromarray(flat), self.size, self.mode, self.fit)

    def padded(self, pixels: Pixels) -> Pixels:
        """The picture in the middle of a square, as (size, size, channels)."""
        height, width, channels = pixels.shape
        if (height, width) == (self.size, self.size):
            return pixels
        square = np.full((self.size, self.size, channels), WHITE, np.uint8)
        top, left = (self.size - height) // 2, (self.size - width) // 2
        square[top : top + height, left : left + width] = pixels
        return square

    def reports(self) -> list[StepReport]:
        """The step, if there was anything to do."""
        if self.fit == CROP and not self.not_square:
            return []
        parameters = {"fit": self.fit} | ({"colour": PADDING} if self.fit == PAD else {})
        return [StepReport("fit", parameters, self.seen, found={"not square": self.not_square})]

    def _count(self, width: int, height: int) -> None:
        self.seen += 1
        self.not_square += width != height


def describe_sizes(found: Iterable[tuple[int, int]], size: int, mode: str) -> str:
    """The sizes of the smallest and the largest picture, and what all become."""
    before = " to ".join(f"{width}x{height}" for width, height in dict.fromkeys(found))
    return f"of {before} pixels, made {size}x{size} {mode}"


def resized(image: Image.Image, size: int, mode: str, fit: str = CROP) -> Pixels:
    """An image as (height, width, channels), resized by a Lanczos filter to fit a square.

    The image is turned as its EXIF orientation says; transparent parts become white.
    """
    image.draft(None, (2 * size, 2 * size))  # the JPEG decoder may skip what is not needed
    image.load()  # so that the next line fails for damaged EXIF data alone
    with suppress(Exception):
        image = ImageOps.exif_transpose(image)
    upright = image
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)  # 16 bits
        upright = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        whole = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", whole.size, PADDING), whole)
    fitted = _fitted(upright.convert(mode), size, fit)
    return np.asarray(fitted, np.uint8).reshape(fitted.height, fitted.width, -1)


def _fitted(image: Image.Image, size: int, fit: str) -> Image.Image:
    """The centre of an image as a square, all of it within one, or all of it distorted."""
    filtering = Image.Resampling.LANCZOS
    if fit == CROP:
        return ImageOps.fit(image, (size, size), filtering)
    if fit != PAD:
        return image.resize((size, size), filtering)
    # not `ImageOps.contain`, which fails where the shorter side comes to nothing
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    return image.resize((width, height), filtering)
