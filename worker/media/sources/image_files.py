"""Pictures of any size and kind, made squares of one size; their labels come from their folders."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from db.errors import BadInput
from worker.data.arrays import Item, Pixels
from worker.data.dataset import TEST, VALIDATION
from worker.data.source_files import Member, members
from worker.data.split import FREE
from worker.media.sources.captions import Captions, is_metadata

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
MAX_PIXELS = 64_000_000
MAX_LABELS = 10_000

Rejecting = Callable[[str, str], None]  # told the name and the reason

_GREY = {"1", "L", "LA", "I;16", "I;16B", "I"}
_SPLITS = {
    "train": FREE,
    "training": FREE,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


@dataclass
class Survey:
    """What a first look at the headers of all pictures tells."""

    sides: Counter[int] = field(default_factory=Counter)  # the shorter side, and how many have it
    coloured: bool = False
    folders: set[tuple[str, ...]] = field(default_factory=set)

    @property
    def size(self) -> int:
        """28 where all are of that size, 32 for small ones, 64 for the rest."""
        if set(self.sides) == {28}:
            return 28
        small = sum(count for side, count in self.sides.items() if side < 48)
        return 32 if 2 * small >= self.sides.total() else 64

    @property
    def mode(self) -> str:
        """`L` where every picture is grey, else `RGB`."""
        return "RGB" if self.coloured else "L"


@dataclass(frozen=True)
class Layout:
    """What the folders of a data set mean: labels, and splits where they are named so."""

    skip: int  # outer folders that all pictures share
    splits: bool  # whether the next folder is `train`, `test` and so on
    labels: tuple[str, ...]

    def read(self, folders: tuple[str, ...]) -> tuple[str | None, int]:
        """The label and the split that a picture's folders give it."""
        rest = folders[self.skip :]
        given = _SPLITS.get(rest[0].lower(), FREE) if self.splits and rest else FREE
        rest = rest[1:] if self.splits else rest
        return (rest[0] if rest else None), given


def survey(path: Path) -> Survey:
    """Look at every picture's header. Files that are none count for nothing here."""
    seen = Survey()
    for member in members(path):
        if member.suffix in SUFFIXES:
            try:
                with _opened(member) as image:
                    seen.sides[min(image.size)] += 1
                    seen.coloured |= image.mode not in _GREY
                    seen.folders.add(member.parents)
            except BadInput:
                continue
    return seen


def layout(folders: set[tuple[str, ...]]) -> Layout:
    """Read the folders: what all share means nothing, then splits where named so, then labels."""
    skip = sum(
        1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    )
    rests = {each[skip:] for each in folders}
    heads = {rest[0].lower() if rest else "" for rest in rests}
    splits = len(heads) > 1 and heads <= set(_SPLITS)
    plain = Layout(skip, splits, ())
    labels = {label for label, _ in map(plain.read, folders) if label is not None}
    if len(labels) > MAX_LABELS:
        raise BadInput(f"{len(labels):,} folders, and so labels; at most {MAX_LABELS:,} are taken")
    return Layout(skip, splits, tuple(sorted(labels, key=natural)))


def items(
    path: Path, plan: Layout, captions: Captions, *, size: int, mode: str, reject: Rejecting
) -> Iterator[Item]:
    """Every usable picture with its label, split and caption; the others go to `reject`.

    Where there are `captions`, pictures without one are left out, and so are captions without a
    picture. What is used of `captions` is taken out of it.
    """
    captioned = bool(captions)
    for member in filter(lambda member: not is_metadata(member), members(path)):
        caption = captions.pop(member.name, None)
        try:
            label, given = plan.read(member.parents)
            if member.suffix not in SUFFIXES:
                raise BadInput(f"no picture by its name; taken are {', '.join(sorted(SUFFIXES))}")
            if plan.labels and label is None:
                raise BadInput("lies beside the folders of the labels, in none of them")
            if captioned and caption is None:
                raise BadInput("no line of a metadata.jsonl gives it a caption")
            with _opened(member) as image:
                pixels = square(image, size, mode)
        except BadInput as error:
            reject(member.name, str(error))
        else:
            number = plan.labels.index(label) if label else None
            yield Item(pixels, number, given, caption.text if caption else None)
    for name, caption in captions.items():
        reject(caption.source, f"there is no file {name}")


def square(image: Image.Image, size: int, mode: str) -> Pixels:
    """The middle of a picture as (size, size, channels), resized by Lanczos' filter.

    The camera's orientation is honoured; what is transparent becomes white.
    """
    image.draft(None, (2 * size, 2 * size))  # lets the JPEG decoder skip what is not needed
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)  # 16 bits
        upright = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        whole = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    fitted = ImageOps.fit(upright.convert(mode), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(fitted, np.uint8).reshape(size, size, -1)


def square_of(pixels: Pixels, size: int, mode: str) -> Pixels:
    """An array (H, W) or (H, W, 1 or 3) as `square` makes it; not touched where it fits already."""
    flat = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    if flat.shape == ((size, size) if mode == "L" else (size, size, 3)):
        return flat.reshape(size, size, -1)
    return square(Image.fromarray(flat), size, mode)


@contextmanager
def _opened(member: Member) -> Iterator[Image.Image]:
    """A picture of an allowed format and size; whatever is wrong with it is `BadInput`."""
    try:
        with warnings.catch_warnings(), member.open() as file:
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _image(file) as image:
                yield image
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput(f"cannot be read as a picture: none of {', '.join(FORMATS)}") from None
    except Exception as error:  # a decoder raises whatever a damaged file makes it trip over
        raise BadInput(f"cannot be read as a picture: {error}") from error


def _image(file: IO[bytes]) -> Image.Image:
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadInput(f"{width}x{height} pixels, more than the limit of {MAX_PIXELS:,}")
    return image


def natural(label: str) -> list[tuple[int, str]]:
    """A key that orders `2` before `10`, and numbers before words."""
    parts = re.split(r"([0-9]+)", label)
    return [(int(part), "") if part.isdecimal() and part else (10**9, part) for part in parts]
