"""A folder or zip of images of any size and format, made square and of one size."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from db.errors import BadInput
from worker.data.source_files import Member, Rejects, members, read_each
from worker.media.sources.captions import Captions, is_metadata
from worker.media.sources.folder_labels import FolderLabels

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
MAX_PIXELS = 64_000_000

Pixels = npt.NDArray[np.uint8]  # (size, size, channels)

_GREY = {"1", "L", "LA", "I;16", "I;16B", "I"}


class ImageItem(NamedTuple):
    """An image, its label's number, its split's code and its caption."""

    pixels: Pixels
    label: int | None
    split: int
    caption: str | None = None


@dataclass
class ImageHeaders:
    """What the headers and folders of all images tell."""

    sides: Counter[int] = field(default_factory=Counter)  # images by their shorter side
    coloured: bool = False
    folders: set[tuple[str, ...]] = field(default_factory=set)

    @property
    def size(self) -> int:
        """28 if all have that size, 32 if half are smaller than 48, else 64."""
        if set(self.sides) == {28}:
            return 28
        small = sum(count for side, count in self.sides.items() if side < 48)
        return 32 if 2 * small >= self.sides.total() else 64

    @property
    def mode(self) -> str:
        """`L` if every image is grey, else `RGB`."""
        return "RGB" if self.coloured else "L"


def read_headers(path: Path) -> ImageHeaders:
    """Read every image's header. Files that are not images are skipped."""
    found = ImageHeaders()

    def look(member: Member) -> None:
        with _opened(member) as image:
            found.sides[min(image.size)] += 1
            found.coloured |= image.mode not in _GREY
            found.folders.add(member.parents)

    for _ in read_each(members(path), SUFFIXES, look, Rejects()):
        pass
    return found


def read_images(
    path: Path, labels: FolderLabels, captions: Captions, rejects: Rejects, *, size: int, mode: str
) -> Iterator[ImageItem]:
    """Every usable image with its label, split and caption; unusable files go to `rejects`.

    If there are `captions`, images without a caption go there too, and captions without an image.
    """
    unused = dict(captions)

    def found() -> Iterator[Member]:
        for member in members(path, rejects):
            unused.pop(member.name, None)
            if not is_metadata(member):
                yield member

    def read(member: Member) -> ImageItem:
        label, split = labels.read(member.parents)
        labels.require(label)
        caption = captions.get(member.name)
        if captions and caption is None:
            raise BadInput("no line of a metadata.jsonl is its caption")
        with _opened(member) as image:
            pixels = to_square(image, size, mode)
        number = labels.labels.index(label) if label else None
        return ImageItem(pixels, number, split, caption.text if caption else None)

    yield from read_each(found(), SUFFIXES, read, rejects)
    for name, caption in unused.items():
        rejects.add(caption.source, f"no file {name}")


def to_square(image: Image.Image, size: int, mode: str) -> Pixels:
    """The centre of an image as (size, size, channels), resized by a Lanczos filter.

    The image is turned as its EXIF orientation says; transparent parts become white.
    """
    image.draft(None, (2 * size, 2 * size))  # the JPEG decoder may skip what is not needed
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)  # 16 bits
        upright = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        whole = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    fitted = ImageOps.fit(upright.convert(mode), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(fitted, np.uint8).reshape(size, size, -1)


def array_to_square(pixels: Pixels, size: int, mode: str) -> Pixels:
    """Like `to_square`, of an (H, W) or (H, W, 1 or 3) array; unchanged if it already fits."""
    flat = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    if flat.shape == ((size, size) if mode == "L" else (size, size, 3)):
        return flat.reshape(size, size, -1)
    return to_square(Image.fromarray(flat), size, mode)


@contextmanager
def _opened(member: Member) -> Iterator[Image.Image]:
    """Open an image of an allowed format and size; `BadInput` for whatever is wrong with it."""
    try:
        with warnings.catch_warnings(), member.open() as file:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise BadInput(
                        f"{width}x{height} pixels, more than the limit of {MAX_PIXELS:,}"
                    )
                yield image
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput(f"cannot be read as an image: none of {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise BadInput(f"cannot be read as an image: {error}") from error
