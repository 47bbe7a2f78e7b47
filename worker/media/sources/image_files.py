"""A folder or zip of images of any size and format, made square and of one size."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from PIL import Image, UnidentifiedImageError

from db.errors import BadInput
from worker.cleaning.recipe import CROP
from worker.cleaning.steps import Chain
from worker.media.sources.annotations import Annotations
from worker.media.sources.layout import Layout, Names
from worker.media.sources.png_repair import without_comments
from worker.media.sources.squares import Pixels, Squares, describe_sizes
from worker.source_files.members import Member, Rejects, raise_if_away, read_each
from worker.source_files.source import Source

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif"}
)
MAX_PIXELS = 64_000_000

Found = TypeVar("Found")

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
    smallest: tuple[int, int] | None = None  # width and height
    largest: tuple[int, int] = (0, 0)
    coloured: bool = False
    names: Names = field(default_factory=Names)

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

    def add(self, size: tuple[int, int], *, coloured: bool) -> None:
        """Take an image into account."""
        self.sides[min(size)] += 1
        self.coloured |= coloured
        self.smallest = min(self.smallest or size, size, key=math.prod)
        self.largest = max(self.largest, size, key=math.prod)

    def describe(self, size: int, mode: str) -> dict[str, str]:
        """The sizes of the images, and what they become, for people."""
        if self.smallest is None:
            return {}
        return {"pictures": describe_sizes([self.smallest, self.largest], size, mode)}


def read_headers(source: Source) -> ImageHeaders:
    """Read every image's header. Files that are not images are skipped."""
    found = ImageHeaders()

    def look(member: Member) -> None:
        size, coloured = _decode(member, lambda it: (it.size, it.mode not in _GREY))
        found.add(size, coloured=coloured)
        found.names.add(member)

    for _ in read_each(source.members(), SUFFIXES, look, Rejects()):
        pass
    return found


def read_images(
    source: Source,
    layout: Layout,
    notes: Annotations,
    rejects: Rejects,
    chain: Chain,
    *,
    size: int,
    mode: str,
    fit: str = CROP,
) -> Iterator[ImageItem]:
    """Every usable image with its label, split and caption; unusable files go to `rejects`.

    What the `notes` say of an image goes before what its folders say. If they give captions or
    labels, images without one go to `rejects` too, and so do captions without an image.
    """
    squares = Squares(size, mode, fit)
    unused = {name: given.source for name, given in notes.given.items()}
    numbers = {label: number for number, label in enumerate(notes.labels or layout.labels)}

    def found() -> Iterator[Member]:
        for member in source.members(rejects):
            unused.pop(member.name, None)
            if member.name not in notes.files:
                yield member

    def read(member: Member) -> ImageItem:
        label, split = layout.read(member)
        given = notes.of(member)
        label = given.label if notes.labels else label
        side, pixels = _decode(member, lambda it: (min(it.size), squares.of_image(it)))
        pixels = squares.padded(chain(pixels, side))
        code = split if given.split is None else given.split
        return ImageItem(pixels, numbers[label] if label else None, code, given.caption)

    yield from read_each(found(), SUFFIXES, read, rejects)
    chain.notes += squares.reports()
    for name, source_of_row in unused.items():
        rejects.add(source_of_row, f"no file {name}")


def _decode(member: Member, use: Callable[[Image.Image], Found]) -> Found:
    """What `use` returns for an image of an allowed format and size; `BadInput` if it is damaged.

    A PNG whose comments alone are damaged is read without them.
    """
    with member.open() as file:
        try:
            return _use(file, use)
        except BadInput:
            repaired = without_comments(file)
            if repaired is None:
                raise
        return _use(repaired, use)


def decode_image(data: bytes, use: Callable[[Image.Image], Found]) -> Found:
    """What `use` returns for the bytes of an image, as `_decode`."""
    return _use(BytesIO(data), use)


def _use(file: IO[bytes], use: Callable[[Image.Image], Found]) -> Found:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise BadInput(
                        f"{width}x{height} pixels, more than the limit of {MAX_PIXELS:,}"
                    )
                return use(image)
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput(f"cannot be read as an image: none of {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        if isinstance(error, OSError):
            raise_if_away(error, Path("the image"))
        raise BadInput(f"cannot be read as an image: {error}") from error
