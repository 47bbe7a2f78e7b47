"""The arrays of a dataset, written item by item before their number is known."""

from array import array
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from worker.data.split import Counts, Ratio, assign_splits, count_splits, hash_of


class ArrayWriter:
    """An `.npy` file of rows of one shape and type; memory does not grow with their number.

    The header is written twice, because NumPy leaves room in it for the first axis to grow.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike = np.uint8) -> None:
        self.row_shape: tuple[int, ...] = (0, 0, 0)  # the first row's
        self.dtype = np.dtype(dtype)
        self.rows = 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()

    def append(self, row: npt.NDArray[Any]) -> None:
        """Add a row; all rows have one shape."""
        self.extend(row[None])

    def extend(self, rows: npt.NDArray[Any]) -> None:
        """Add some rows; all rows have one shape."""
        if not self.rows:
            self.row_shape = rows.shape[1:]
        if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
            wanted = f"{self.dtype} {self.row_shape}"
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
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


class SplitsAndLabels:
    """Collects the hash, split and label of each item, which takes a few bytes an item."""

    def __init__(self) -> None:
        self._hashes, self._given, self._labels = array("Q"), array("B"), array("q")

    def add(self, data: bytes, label: int | None, split: int) -> None:
        """Add an item: its content, its label's number and its split's code."""
        self._hashes.append(hash_of(data))
        self._given.append(split)
        if label is not None:
            self._labels.append(label)

    def write(
        self, folder: Path, labels: tuple[str, ...], ratio: Ratio
    ) -> tuple[tuple[str, ...], Counts]:
        """Write `split.npy` and, if labelled, `labels.npy`; return the labels in use and counts."""
        hashes, given = np.frombuffer(self._hashes, np.uint64), np.frombuffer(self._given, np.uint8)
        codes = assign_splits(hashes, given, ratio)
        np.save(folder / "split.npy", codes)
        used, renumbered = np.unique(np.frombuffer(self._labels, np.int64), return_inverse=True)
        if labels:
            np.save(folder / "labels.npy", renumbered.astype(np.int64))
        return tuple(labels[each] for each in used), count_splits(codes)
