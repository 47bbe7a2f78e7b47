"""The arrays of a dataset, written item by item, for their number is not known yet."""

import json
from array import array
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.data.dataset import CAPTIONS, Shape
from worker.data.split import Counts, Ratio, assign, counted, place

Pixels = npt.NDArray[np.uint8]  # (size, size, channels)


class Item(NamedTuple):
    """An image, its label's number, its split's code (`split.FREE` where not given), a caption."""

    pixels: Pixels
    label: int | None
    given: int
    caption: str | None = None


class SoundItem(NamedTuple):
    """A sound of any length, mono, its label's number, its split's code."""

    samples: npt.NDArray[np.int16]  # (T,)
    label: int | None
    given: int


class ArrayWriter:
    """An `.npy` file of rows of one shape and kind; memory does not grow with their number.

    The header is written twice: NumPy keeps room in it for the first axis to grow.
    """

    def __init__(self, path: Path, kind: npt.DTypeLike = np.uint8) -> None:
        self.row_shape: tuple[int, ...] = (0, 0, 0)  # the first row's
        self.kind = np.dtype(kind)
        self.rows = 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()

    def append(self, row: npt.NDArray[Any]) -> None:
        """Add one row, of the shape of the first."""
        self.extend(row[None])

    def extend(self, rows: npt.NDArray[Any]) -> None:
        """Add some rows, all of the shape of the first."""
        if not self.rows:
            self.row_shape = rows.shape[1:]
        if rows.shape[1:] != self.row_shape or rows.dtype != self.kind:
            wanted = f"{self.kind} {self.row_shape}"
            raise ValueError(f"a row is {rows.dtype} {rows.shape[1:]}, not {wanted}")
        self._file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._write_header()

    def _write_header(self) -> None:
        shape = (self.rows, *self.row_shape)
        header = {"descr": self.kind.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def write_images(
    items: Iterable[Item],
    folder: Path,
    *,
    labels: tuple[str, ...],
    ratio: Ratio,
    captioned: bool = False,
) -> tuple[Shape, Counts]:
    """Write `images.npy`, `split.npy`, where labelled `labels.npy`, and `captions.jsonl` where
    `captioned`.

    All items are of one shape, and all or none are labelled. Labels that no image has are dropped.
    """
    ledger = Ledger()
    captions = (folder / CAPTIONS).open("w", encoding="utf-8") if captioned else nullcontext()
    with ArrayWriter(folder / "images.npy") as images, captions as lines:
        for item in items:
            images.append(item.pixels)
            ledger.add(item.pixels.tobytes(), item.label, item.given)
            if lines is not None:
                lines.write(json.dumps({"text": item.caption}, ensure_ascii=False) + "\n")
    if not images.rows:
        return Shape("image"), (0, 0, 0)
    used, counts = ledger.write(folder, labels, ratio)
    size, _, channels = images.row_shape
    return Shape("image", used, size, channels), counts


def write_sounds(
    items: Iterable[SoundItem], folder: Path, *, labels: tuple[str, ...], rate: int, ratio: Ratio
) -> tuple[Shape, Counts]:
    """Write `sounds.npy`, all samples in a row, `offsets.npy`, `split.npy` and, where labelled,
    `labels.npy`.

    All or none are labelled. Labels that no sound has are dropped.
    """
    ledger, offsets = Ledger(), array("q", [0])
    with ArrayWriter(folder / "sounds.npy", np.int16) as sounds:
        for item in items:
            sounds.extend(item.samples)
            offsets.append(sounds.rows)
            ledger.add(item.samples.tobytes(), item.label, item.given)
    if not sounds.rows:
        return Shape("audio"), (0, 0, 0)
    np.save(folder / "offsets.npy", np.frombuffer(offsets, np.int64))
    used, counts = ledger.write(folder, labels, ratio)
    return Shape("audio", used, sample_rate=rate), counts


class Ledger:
    """What is noted of each item as it comes: some bytes an item."""

    def __init__(self) -> None:
        self._places, self._given, self._numbers = array("Q"), array("B"), array("q")

    def add(self, data: bytes, label: int | None, given: int) -> None:
        """Note an item by its content, its label's number and its split's code."""
        self._places.append(place(data))
        self._given.append(given)
        if label is not None:
            self._numbers.append(label)

    def write(
        self, folder: Path, labels: tuple[str, ...], ratio: Ratio
    ) -> tuple[tuple[str, ...], Counts]:
        """Write `split.npy` and, where labelled, `labels.npy`; the labels in use, and counts."""
        places, given = np.frombuffer(self._places, np.uint64), np.frombuffer(self._given, np.uint8)
        codes = assign(places, given, ratio)
        np.save(folder / "split.npy", codes)
        numbers = np.frombuffer(self._numbers, np.int64)
        used, renumbered = np.unique(numbers, return_inverse=True)
        if labels:
            np.save(folder / "labels.npy", renumbered.astype(np.int64))
        return tuple(labels[each] for each in used), counted(codes)
