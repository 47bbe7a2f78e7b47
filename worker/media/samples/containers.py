"""Many samples in one local file: a WebDataset tar, or JSON Lines.

A thread encodes while the model makes the next samples. Its queue is bounded, so memory does not
grow with the number of samples. Bytes depend on the samples alone, so a sample has the same digest
however shards are cut. A writer knows no store and no database: the caller stores the closed file.
"""

import hashlib
import queue
import re
import tarfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar

import numpy.typing as npt

from db.errors import BadInput, GenmillError
from worker.media.samples.index import IndexEntry, SampleIndex
from worker.media.samples.record import Record, to_json

QUEUE_SAMPLES = 64
MAX_RECORD_BYTES = 64 << 20
# of a regular file in a tar: its name, mode, owner, size, time and checksum, its kind and format
_HEADER = re.compile(rb"(?s).{124}(?P<size>[0-7]{11})\0.{20}0.{100}ustar\0.*")

Output = npt.NDArray[Any] | str  # uint8 (H, W, C) image, float32 (T,) sound, or text


@dataclass(frozen=True)
class SampleRecord:
    """A sample and its record (`worker.media.samples.record.Origin.record`)."""

    index: int
    output: Output
    record: Record


def describe(output: Output) -> str:
    """What an output is, for errors: `text` or its type and shape."""
    return "text" if isinstance(output, str) else f"{output.dtype} {output.shape}"


@dataclass(frozen=True)
class Written:
    """A closed file and the index of its samples."""

    path: Path
    media_type: str
    extension: str
    index: SampleIndex


class Writer(ABC):
    """Writes samples to `path`. Left without `close()`, as after an error, it removes the file."""

    media_type: ClassVar[str]
    extension: ClassVar[str]
    end_marker: ClassVar[bytes] = b""

    def __init__(self, path: Path, suffix: str, encode: Callable[[SampleRecord], bytes]) -> None:
        self.path = path
        self._suffix, self._encode = suffix, encode
        self._entries: list[IndexEntry] = []
        self._offset = 0
        self._error: BaseException | None = None
        self._closed = False
        self._file = path.open("wb")
        self._queue: queue.Queue[SampleRecord | None] = queue.Queue(QUEUE_SAMPLES)
        self._thread = threading.Thread(target=self._write_queued, name="writer", daemon=True)
        self._thread.start()

    def add(self, sample: SampleRecord) -> None:
        """Queue a sample; waits while the queue is full, and raises any error of the thread."""
        self._require_open()
        if self._error is not None:
            raise self._error
        self._queue.put(sample)

    def close(self) -> Written:
        """Wait for the last sample, end the file, and return where each sample lies."""
        self._require_open()
        try:
            self._stop()
            with self._file:
                if self._error is not None:
                    raise self._error
                self._append(self.end_marker)
            index = SampleIndex.of(self._entries)
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        return Written(self.path, self.media_type, self.extension, index)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._closed:
            self._stop()
            self._file.close()
            self.path.unlink(missing_ok=True)

    @staticmethod
    @abstractmethod
    def read_record(file: IO[bytes], data: bytes) -> bytes:
        """The JSON record of the sample `data`, which was just read from `file`.

        Raises `BadInput` if there is none.
        """

    @abstractmethod
    def _write(self, sample: SampleRecord) -> None:
        """Encode one sample and append it."""

    def _require_open(self) -> None:
        if self._closed:
            raise GenmillError(f"the writer of {self.path.name} is closed")

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._offset += len(data)

    def _add_entry(self, sample: SampleRecord, data: bytes) -> None:
        """Note that the sample is `data`, which is appended next."""
        digest = hashlib.sha256(data).hexdigest()
        self._entries.append(IndexEntry(sample.index, self._offset, len(data), digest))

    def _stop(self) -> None:
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _write_queued(self) -> None:
        while (sample := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep emptying the queue, or `add` would wait for ever
            try:
                self._write(sample)
            except BaseException as error:  # raised again in the caller's thread
                self._error = error


class Tar(Writer):
    """WebDataset: `000000017.png` followed by `000000017.json`, headers without times or owners."""

    media_type = "application/x-tar"
    extension = ".tar"
    end_marker = bytes(2 * tarfile.BLOCKSIZE)

    @staticmethod
    def read_record(file: IO[bytes], data: bytes) -> bytes:
        """The content of the next file in the tar."""
        file.seek(-len(data) % tarfile.BLOCKSIZE, 1)
        header = file.read(tarfile.BLOCKSIZE)
        # read by hand: tarfile's own parser takes longer than everything else
        found = _HEADER.fullmatch(header)
        if found is None or (size := int(found["size"], 8)) > MAX_RECORD_BYTES:
            raise BadInput("no record follows the sample")
        return file.read(size)

    def _write(self, sample: SampleRecord) -> None:
        key = f"{sample.index:09d}"
        data = self._encode(sample)
        self._append_header(key + self._suffix, len(data))
        self._add_entry(sample, data)
        self._append_padded(data)
        text = to_json(sample.record).encode()
        self._append_header(f"{key}.json", len(text))
        self._append_padded(text)

    def _append_header(self, name: str, size: int) -> None:
        # tarfile.TarFile would keep every member in memory, so only TarInfo is used
        header = tarfile.TarInfo(name)
        header.size = size
        self._append(header.tobuf(tarfile.USTAR_FORMAT))

    def _append_padded(self, data: bytes) -> None:
        self._append(data + bytes(-len(data) % tarfile.BLOCKSIZE))


class JsonLines(Writer):
    """One JSON object a line, both sample and record. A sample is a line without its line break."""

    media_type = "application/jsonl"
    extension = ".jsonl"

    @staticmethod
    def read_record(file: IO[bytes], data: bytes) -> bytes:
        """The sample itself."""
        return data

    def _write(self, sample: SampleRecord) -> None:
        line = self._encode(sample)
        self._add_entry(sample, line)
        self._append(line + b"\n")
