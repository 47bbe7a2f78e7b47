"""Arrays of a dataset, written item by item before their number is known, and made shorter."""

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

ROWS = 1024  # copied at once


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


def keep_stretches(
    path: Path, ends: npt.NDArray[np.int64], keep: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Leave only some stretches `ends[i]` to `ends[i + 1]` of an array; return the new ends."""
    lengths = np.diff(ends)
    if not keep.all():
        rows = np.load(path, mmap_mode="r")
        short = path.with_suffix(".short")
        with ArrayWriter(short, rows.dtype) as out:
            for item in np.flatnonzero(keep):
                out.extend(rows[ends[item] : ends[item + 1]])
        short.replace(path)
    return np.concatenate([ends[:1], np.cumsum(lengths[keep])])


def keep_rows(path: Path, keep: npt.NDArray[np.bool_]) -> None:
    """Leave only some rows in an `.npy` file; memory does not grow with their number."""
    if keep.all():
        return
    rows = np.load(path, mmap_mode="r")
    short = path.with_suffix(".short")
    with ArrayWriter(short, rows.dtype) as out:
        for first in range(0, len(rows), ROWS):
            kept = rows[first : first + ROWS][keep[first : first + ROWS]]
            if len(kept):
                out.extend(kept)
    short.replace(path)
