"""The arrays of a dataset of images, written image by image, for their number is not known yet."""

from array import array
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from worker.data.feed import Shape
from worker.data.split import Counts, Ratio, assign, counted, place

Pixels = npt.NDArray[np.uint8]  # (size, size, channels)
Item = tuple[Pixels, int | None, int]  # an image, its label's number, its split where given


class ArrayWriter:
    """An `.npy` file of uint8 rows of one shape; memory does not grow with their number.

    The header is written twice: NumPy keeps room in it for the first axis to grow.
    """

    def __init__(self, path: Path) -> None:
        self.row_shape: tuple[int, ...] = (0, 0, 0)  # the first row's
        self.rows = 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()

    def append(self, row: npt.NDArray[np.uint8]) -> None:
        """Add one row, of the shape of the first."""
        if not self.rows:
            self.row_shape = row.shape
        if row.shape != self.row_shape or row.dtype != np.uint8:
            raise ValueError(f"a row is {row.dtype} {row.shape}, not uint8 {self.row_shape}")
        self._file.write(np.ascontiguousarray(row).data)
        self.rows += 1

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
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.rows, *self.row_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def write_images(
    items: Iterable[Item], folder: Path, *, labels: tuple[str, ...], ratio: Ratio
) -> tuple[Shape, Counts]:
    """Write `images.npy`, `split.npy` and, where labelled, `labels.npy`.

    All items are of one shape, and all or none are labelled. Labels that no image has are dropped.
    """
    places, given, numbers = array("Q"), array("B"), array("q")
    with ArrayWriter(folder / "images.npy") as images:
        for pixels, label, code in items:
            images.append(pixels)
            places.append(place(pixels.tobytes()))
            given.append(code)
            if label is not None:
                numbers.append(label)
    if not images.rows:
        return Shape("image"), (0, 0, 0)
    codes = assign(np.frombuffer(places, np.uint64), np.frombuffer(given, np.uint8), ratio)
    np.save(folder / "split.npy", codes)
    used, renumbered = np.unique(np.frombuffer(numbers, np.int64), return_inverse=True)
    if labels:
        np.save(folder / "labels.npy", renumbered.astype(np.int64))
    size, _, channels = images.row_shape
    return Shape("image", tuple(labels[each] for each in used), size, channels), counted(codes)
