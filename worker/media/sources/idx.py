"""IDX files, the format of MNIST (LeCun, Cortes, Burges: yann.lecun.com/exdb/mnist).

A header of two zero bytes, a type, the number of axes and each axis's length as a big-endian 32-bit
integer; then the values. Supported are bytes (type 0x08) with one axis (labels), three (images) or
four (images with channels last), gzipped or not.
"""

import gzip
import itertools
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from db.errors import BadInput
from worker.data.dataset import TEST, VALIDATION
from worker.data.source_files import Rejects, read_errors
from worker.data.split import UNASSIGNED
from worker.media.sources.image_files import ImageItem, array_to_square

MAX_ITEMS = 10_000_000
MAX_SIDE = 4096
_BLOCK = 1 << 20  # bytes of pixels read at once
_AXES = {1, 3, 4}
_IDX_NAME = re.compile(r"idx[134]|ubyte")


@dataclass(frozen=True)
class Pair:
    """A file of images and, if there is one, the file of their labels."""

    images: Path
    labels: Path | None

    @property
    def split(self) -> int:
        """The split that the file's name states, such as `t10k-`, or `UNASSIGNED`."""
        name = self.images.name.lower()
        if name.startswith("t10k") or "test" in name:
            return TEST
        return VALIDATION if "val" in name else UNASSIGNED


@dataclass(frozen=True)
class IdxFiles:
    """IDX files that form one dataset: their headers and labels."""

    pairs: list[Pair]
    numbers: list[npt.NDArray[np.uint8] | None]  # the labels of each pair's images
    size: int  # the shorter side of the images, in pixels
    mode: str  # L | RGB

    @property
    def labels(self) -> tuple[str, ...]:
        """All possible labels, by number; none if the images are unlabelled."""
        return tuple(str(number) for number in range(256)) if self.numbers[0] is not None else ()


def open_idx(path: Path, rejects: Rejects) -> IdxFiles:
    """Open a file of images or a folder of such files; `BadInput` if they do not match.

    Files of a folder that cannot be read go to `rejects`.
    """
    pairs = _pairs(path, rejects)
    shapes = {_read_shape(pair.images)[1:] for pair in pairs}
    if len(shapes) > 1:
        raise BadInput(f"{path.name}: its images have several shapes: {sorted(shapes)}")
    numbers = [_read_labels(pair) for pair in pairs]
    if len({each is None for each in numbers}) > 1:
        raise BadInput(f"{path.name}: some of its files of images have labels, others have none")
    (shape,) = shapes
    return IdxFiles(pairs, numbers, min(shape[:2]), "RGB" if shape[2:] == (3,) else "L")


def read_idx(files: IdxFiles, *, size: int, mode: str) -> Iterator[ImageItem]:
    """Every image with its label's number and the split that its file's name states."""
    for pair, numbers in zip(files.pairs, files.numbers, strict=True):
        labels = itertools.repeat(None) if numbers is None else iter(numbers.tolist())
        for block in _blocks(pair.images):
            for pixels in block:
                yield ImageItem(array_to_square(pixels, size, mode), next(labels), pair.split)


def is_idx(path: Path) -> bool:
    """Whether a file has an IDX header or an IDX name, or a folder has a file with an IDX header.

    A file of a folder that cannot be read is judged by its name.
    """
    if path.is_dir():
        closed = Rejects()
        return bool(_idx_files_in(path, closed)) or any(
            _IDX_NAME.search(each.name) for each in closed.first
        )
    return bool(_IDX_NAME.search(path.name.lower())) or _has_header(path)


def _has_header(path: Path) -> bool:
    try:
        with _opened(path) as file:
            head = file.read(4)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return len(head) == 4 and head[:3] == b"\x00\x00\x08" and head[3] in _AXES


def _idx_files_in(folder: Path, rejects: Rejects) -> list[Path]:
    found = []
    for path in filter(Path.is_file, sorted(folder.iterdir())):
        try:
            with read_errors(), path.open("rb"):
                pass
            if _has_header(path):
                found.append(path)
        except BadInput as error:
            rejects.add(path.name, str(error))
    return found


def _pairs(path: Path, rejects: Rejects) -> list[Pair]:
    """The files of images in a folder, or the given one, each with the file of its labels."""
    found = [path] if path.is_file() else _idx_files_in(path, rejects)
    names = {each.name for each in found}
    found = [each for each in found if each.suffix != ".gz" or each.stem not in names]
    images = [each for each in found if len(_read_shape(each)) > 1]
    labels = [each for each in found if each not in images]
    if not images and rejects.count:
        raise BadInput(f"{rejects.first[0].name}: {rejects.first[0].reason}")
    if not images:
        raise BadInput(
            f"{path.name}: labels only", remedy="give the folder that holds the images too"
        )
    if len(images) == len(labels) == 1 and not rejects.count:
        return [Pair(images[0], labels[0])]
    return [Pair(each, _labels_beside(each)) for each in images]


def _labels_beside(images: Path) -> Path | None:
    """The file of labels beside `images`, named as in MNIST."""
    name = images.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    for candidate in (images.with_name(name), images.with_name(f"{name}.gz")):
        if candidate != images and candidate.is_file() and _has_header(candidate):
            return candidate
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
            f"{pair.labels.name} holds {len(labels)} labels, {pair.images.name} {count} images"
        )
    return labels


def _blocks(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """The values of an IDX file, a block of its first axis at a time."""
    with _opened(path) as file:
        shape = _parse_header(file, path.name)
        row = int(np.prod(shape[1:], dtype=np.int64))
        step = max(1, _BLOCK // row)
        for first in range(0, shape[0], step):
            count = min(step, shape[0] - first)
            data = _read(file, count * row, path.name)
            if len(data) < count * row:
                raise BadInput(
                    f"{path.name}: cut short: it has {first + len(data) // row} of the {shape[0]} "
                    "items that its header states"
                )
            yield np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
        if _read(file, 1, path.name):
            raise BadInput(f"{path.name}: more data than the {shape[0]} items its header states")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with read_errors(path.name), path.open("rb") as packed:
        head = packed.read(2)
        packed.seek(0)
        with cast(IO[bytes], gzip.open(packed)) if head == b"\x1f\x8b" else packed as file:
            yield file


def _read(file: IO[bytes], size: int, name: str) -> bytes:
    try:
        return file.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{name}: damaged gzip data ({error})") from error


def _read_shape(path: Path) -> tuple[int, ...]:
    with _opened(path) as file:
        return _parse_header(file, path.name)


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
