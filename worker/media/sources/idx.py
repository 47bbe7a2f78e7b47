"""IDX files, the format of MNIST (LeCun, Cortes, Burges: yann.lecun.com/exdb/mnist).

A header of two zero bytes, a type, the number of axes and each axis's length as a big-endian 32-bit
integer; then the values. Supported are bytes (type 0x08) with one axis (labels), three (images) or
four (images with channels last), gzipped or not.
"""

import gzip
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from db.errors import BadInput
from worker.cleaning.recipe import CROP
from worker.cleaning.steps import Chain
from worker.data.dataset import TEST, VALIDATION
from worker.data.split import UNASSIGNED
from worker.media.sources.image_files import ImageItem
from worker.media.sources.squares import Squares, describe_sizes
from worker.source_files.folders import open_file
from worker.source_files.members import Member, Rejects, Unfit
from worker.source_files.source import Source

MAX_ITEMS = 10_000_000
MAX_SIDE = 4096
MAX_BYTES = 16 << 30  # of a file
_BLOCK = 1 << 20  # bytes of pixels read at once
_AXES = {1, 3, 4}
_IDX_NAME = re.compile(r"idx[134]|ubyte")


@dataclass(frozen=True)
class Pair:
    """A file of images and, if there is one, the file of their labels."""

    images: Member
    labels: Member | None

    @property
    def split(self) -> int:
        """The split that the file's name states, such as `t10k-`, or `UNASSIGNED`."""
        name = _base(self.images).lower()
        if name.startswith("t10k") or "test" in name:
            return TEST
        return VALIDATION if "val" in name else UNASSIGNED


@dataclass(frozen=True)
class IdxFiles:
    """IDX files that form one dataset: their headers and labels."""

    pairs: list[Pair]
    numbers: list[npt.NDArray[np.uint8] | None]  # the labels of each pair's images
    shape: tuple[int, ...]  # of the images: height, width, perhaps channels

    @property
    def size(self) -> int:
        """The shorter side of the images, in pixels."""
        return min(self.shape[:2])

    @property
    def mode(self) -> str:
        """Grey, or colour."""
        return "RGB" if self.shape[2:] == (3,) else "L"

    @property
    def labels(self) -> tuple[str, ...]:
        """All possible labels, by number; none if the images are unlabelled."""
        return tuple(str(number) for number in range(256)) if self.numbers[0] is not None else ()

    def describe(self, size: int, mode: str) -> dict[str, str]:
        """How labels and splits were read, and what the images become, for people."""
        files = ", ".join(_base(pair.labels) for pair in self.pairs if pair.labels)
        named = any(pair.split != UNASSIGNED for pair in self.pairs)
        return {
            "labels": f"from {files}" if files else "none",
            "splits": "from the names of the files" if named else "from the items' content",
            "pictures": describe_sizes([(self.shape[1], self.shape[0])], size, mode),
        }


def open_idx(source: Source, rejects: Rejects) -> IdxFiles:
    """Open a file of images, or a folder or archive of them; `BadInput` if they do not match.

    Other files, and those that cannot be read, go to `rejects`.
    """
    pairs = _pairs(source, rejects)
    shapes = {_read_shape(pair.images)[1:] for pair in pairs}
    if len(shapes) > 1:
        raise BadInput(f"{source.name}: its images have several shapes: {sorted(shapes)}")
    numbers = [_read_labels(pair) for pair in pairs]
    if len({each is None for each in numbers}) > 1:
        raise BadInput(f"{source.name}: some of its files of images have labels, others have none")
    (shape,) = shapes
    return IdxFiles(pairs, numbers, shape)


def read_idx(
    files: IdxFiles, rejects: Rejects, chain: Chain, *, size: int, mode: str, fit: str = CROP
) -> Iterator[ImageItem]:
    """Every usable image with its label's number and the split that its file's name states."""
    squares = Squares(size, mode, fit)
    for pair, numbers in zip(files.pairs, files.numbers, strict=True):
        labels = itertools.repeat(None) if numbers is None else iter(numbers.tolist())
        images = itertools.chain.from_iterable(_blocks(pair.images))
        for number, (image, label) in enumerate(zip(images, labels, strict=False)):
            try:
                pixels = squares.padded(chain(squares.of_array(image), files.size))
            except Unfit as error:
                rejects.add(f"{_base(pair.images)} item {number}", error)
            else:
                yield ImageItem(pixels, label, pair.split)
    chain.notes += squares.reports()


def is_idx(source: Source) -> bool:
    """Whether a file has an IDX header or an IDX name, or a member of many has an IDX header.

    A member that cannot be read is judged by its name.
    """
    for member in source.members():
        try:
            if _has_header(member) or (source.is_single and _IDX_NAME.search(member.name.lower())):
                return True
        except BadInput:
            if _IDX_NAME.search(member.name.lower()):
                return True
    return False


def _has_header(member: Member) -> bool:
    try:
        with _opened(member) as file:
            head = file.read(4)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return len(head) == 4 and head[:3] == b"\x00\x00\x08" and head[3] in _AXES


def _idx_files(source: Source, rejects: Rejects) -> list[Member]:
    """The IDX files among many, each once where it is there packed by gzip and unpacked."""
    found = []
    for member in source.members(rejects):
        try:
            with member.open(MAX_BYTES):
                pass
            if _has_header(member):
                found.append(member)
            else:
                rejects.ignore(member.name)
        except BadInput as error:
            rejects.add(member.name, str(error))
    names = {each.name for each in found}
    return [each for each in found if each.name.removesuffix(".gz") not in names - {each.name}]


def _pairs(source: Source, rejects: Rejects) -> list[Pair]:
    """The files of images, each with the file of its labels."""
    found = list(source.members()) if source.is_single else _idx_files(source, rejects)
    images = [each for each in found if len(_read_shape(each)) > 1]
    labels = [each for each in found if each not in images]
    if not images and rejects.count:
        raise BadInput(f"{rejects.first[0].name}: {rejects.first[0].reason}")
    if not images:
        raise BadInput(
            f"{source.name}: labels only", remedy="give the folder that holds the images too"
        )
    if len(images) == len(labels) == 1 and not rejects.count:
        return [Pair(images[0], labels[0])]
    others = _neighbours(source.path) if source.is_single else source.members()
    beside = {each.name: each for each in others if _IDX_NAME.search(each.name)}
    return [Pair(each, _labels_beside(each, beside)) for each in images]


def _neighbours(path: Path) -> Iterator[Member]:
    """The files in the folder of one that was given by itself."""
    for each in path.parent.iterdir():
        if each.is_file():
            yield Member(each.name, partial(open_file, each))


def _labels_beside(images: Member, beside: Mapping[str, Member]) -> Member | None:
    """The file of labels beside `images`, named as in MNIST."""
    name = images.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    for candidate in (name, f"{name}.gz"):
        member = beside.get(candidate)
        if member and candidate != images.name and _has_header(member):
            return member
    return None


def _read_labels(pair: Pair) -> npt.NDArray[np.uint8] | None:
    """The labels of a pair's images, (N,), or None; `BadInput` if the numbers differ."""
    if pair.labels is None:
        return None
    blocks = list(_blocks(pair.labels))
    count = _read_shape(pair.images)[0]
    labels = np.concatenate(blocks) if blocks else np.zeros(0, np.uint8)
    if len(labels) != count:
        raise BadInput(
            f"{_base(pair.labels)} holds {len(labels)} labels, {_base(pair.images)} {count} images"
        )
    return labels


def _blocks(member: Member) -> Iterator[npt.NDArray[np.uint8]]:
    """The values of an IDX file, a block of its first axis at a time."""
    name = _base(member)
    with _opened(member) as file:
        shape = _parse_header(file, name)
        row = int(np.prod(shape[1:], dtype=np.int64))
        step = max(1, _BLOCK // row)
        for first in range(0, shape[0], step):
            count = min(step, shape[0] - first)
            data = _read(file, count * row, name)
            if len(data) < count * row:
                raise BadInput(
                    f"{name}: cut short: it has {first + len(data) // row} of the {shape[0]} "
                    "items that its header states"
                )
            yield np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
        if _read(file, 1, name):
            raise BadInput(f"{name}: more data than the {shape[0]} items its header states")


@contextmanager
def _opened(member: Member) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(member.open(MAX_BYTES))
        except BadInput as error:
            raise BadInput(f"{_base(member)}: {error.message}", remedy=error.remedy) from error
        head = file.read(2)
        file.seek(0)
        if head == b"\x1f\x8b":
            file = stack.enter_context(cast(IO[bytes], gzip.GzipFile(fileobj=file)))
        yield file


def _read(file: IO[bytes], size: int, name: str) -> bytes:
    try:
        return file.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{name}: damaged gzip data ({error})") from error


def _read_shape(member: Member) -> tuple[int, ...]:
    with _opened(member) as file:
        return _parse_header(file, _base(member))


def _base(member: Member) -> str:
    return PurePosixPath(member.name).name


def _parse_header(file: IO[bytes], name: str) -> tuple[int, ...]:
    """The lengths of the axes."""
    head = _read(file, 4, name)
    if len(head) < 4 or head[:3] != b"\x00\x00\x08" or head[3] not in _AXES:
        raise BadInput(
            f"{name}: not an IDX file of bytes: begins with {head.hex(' ') or 'nothing'}, not with "
            "00 00 08 and 01 (labels), 03 or 04 (images)"
        )
    sizes = _read(file, 4 * head[3], name)
    shape = tuple(int(n) for n in np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4"))
    sane = len(shape) == head[3] and shape[0] <= MAX_ITEMS and all(shape[1:])
    if not sane or max(shape[1:3], default=1) > MAX_SIDE or shape[3:] not in {(), (1,), (3,)}:
        raise BadInput(
            f"{name}: an IDX header of shape {shape}",
            remedy=f"use at most {MAX_ITEMS:,} items, {MAX_SIDE} pixels a side, 1 or 3 channels",
        )
    return shape
