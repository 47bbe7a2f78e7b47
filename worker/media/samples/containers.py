"""Many samples in one object: a WebDataset tar, or JSON Lines.

Small objects are built in memory, larger ones in a file, so memory does not grow with the number of
samples. Bytes depend on the samples alone, so a sample has the same digest however shards are cut.
A writer knows no store and no database: the caller stores what it has written.
"""

import hashlib
import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar

import numpy.typing as npt

from db.errors import BadInput, GenmillError
from worker.media.samples.index import IndexWriter, SampleIndex
from worker.media.samples.record import SharedRecord

SMALL_BYTES = 1 << 20  # of an object that is built in memory
MAX_RECORD_BYTES = 64 << 20
# of a regular file in a tar: its name, mode, owner, size, time and checksum, its kind and format
_FILE_HEADER = re.compile(rb"(?s).{124}(?P<size>[0-7]{11})\0.{20}0.{100}ustar\0.*")

Output = npt.NDArray[Any] | str  # uint8 (H, W, C) image, float32 (T,) sound, or text


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """A sample and its record, which is `shared` with others except for the index."""

    index: int
    output: Output
    shared: SharedRecord

    @property
    def json(self) -> bytes:
        """The record as a line of JSON."""
        return self.shared.json(self.index)


def describe(output: Output) -> str:
    """What an output is, for errors: `text` or its type and shape."""
    return "text" if isinstance(output, str) else f"{output.dtype} {output.shape}"


@dataclass(frozen=True)
class Written:
    """A finished object, in memory or in a file, and the index of its samples."""

    content: bytes | Path
    media_type: str
    extension: str
    index: SampleIndex

    def read(self) -> bytes:
        """All bytes of the object."""
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


Encode = Callable[[Sequence[SampleRecord]], Sequence[bytes]]


class Writer(ABC):
    """Writes samples in the order of their numbers. Left without `close()`, it removes its file."""

    media_type: ClassVar[str]
    extension: ClassVar[str]
    end_marker: ClassVar[bytes] = b""

    def __init__(self, path: Path, suffix: str, encode: Encode) -> None:
        """`path` is used once the object is larger than `SMALL_BYTES`."""
        self.path = path
        self._suffix, self._encode = suffix.encode(), encode
        self._index = IndexWriter()
        self._size = 0
        self._pending = bytearray()  # what is not in the file
        self._closed = False
        self._file: IO[bytes] | None = None

    def add(self, samples: Sequence[SampleRecord]) -> None:
        """Encode samples and append them."""
        self.append(samples, self._encode(samples))

    def append(self, samples: Sequence[SampleRecord], encoded: Sequence[bytes]) -> None:
        """Append samples that the medium has encoded."""
        if self._closed:
            raise GenmillError(f"the writer of {self.path.name} is closed")
        for sample, data in zip(samples, encoded, strict=True):
            for part in self._parts(sample, data):
                if part is data:
                    digest = hashlib.sha256(data).digest()
                    self._index.add(sample.index, self._size, len(data), digest)
                self._size += len(part)
                self._pending += part
        if self._size > SMALL_BYTES:
            self._flush()

    def close(self) -> Written:
        """End the object and return it; the caller removes its file, if it has one."""
        self.append((), ())
        self._closed = True
        self._pending += self.end_marker
        content: bytes | Path = bytes(self._pending)
        if self._file:
            content = self.path
            self._flush()
            self._file.close()
        return Written(content, self.media_type, self.extension, self._index.close())

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind or not self._closed:
            self.discard()

    def discard(self) -> None:
        """Give up what has been written."""
        self._closed = True
        if self._file:
            self._file.close()
            self.path.unlink(missing_ok=True)

    @staticmethod
    @abstractmethod
    def read_record(file: IO[bytes], data: bytes) -> bytes:
        """The JSON record of the sample `data`, which was just read from `file`.

        Raises `BadInput` if there is none.
        """

    @abstractmethod
    def _parts(self, sample: SampleRecord, data: bytes) -> Iterator[bytes]:
        """The bytes that a sample adds to the object; one of them is `data` itself."""

    def _flush(self) -> None:
        if self._file is None:
            self._file = self.path.open("wb")
        self._file.write(self._pending)
        self._pending.clear()


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
        found = _FILE_HEADER.fullmatch(header)
        if found is None or (size := int(found["size"], 8)) > MAX_RECORD_BYTES:
            raise BadInput("no record follows the sample")
        return file.read(size)

    def _parts(self, sample: SampleRecord, data: bytes) -> Iterator[bytes]:
        key = b"%09d" % sample.index
        yield from tar_parts(key + self._suffix, data)
        yield from tar_parts(key + b".json", sample.json)


class JsonLines(Writer):
    """One JSON object a line, both sample and record. A sample is a line without its line break."""

    media_type = "application/jsonl"
    extension = ".jsonl"

    @staticmethod
    def read_record(file: IO[bytes], data: bytes) -> bytes:
        """The sample itself."""
        return data

    def _parts(self, sample: SampleRecord, data: bytes) -> Iterator[bytes]:
        yield data
        yield b"\n"


# of an empty file without a name; tarfile takes 16 microseconds for each header
_HEADER = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_BEFORE_SIZE, _BEFORE_SUM, _AFTER_SUM = _HEADER[100:124], _HEADER[135:148], _HEADER[156:]
_OTHERS = sum(_BEFORE_SIZE + _BEFORE_SUM + b" " * 8 + _AFTER_SUM)  # bytes of the checksum


def tar_parts(name: bytes, data: bytes) -> Iterator[bytes]:
    """The bytes of a file in a tar; one of them is `data` itself."""
    yield _tar_header(name, len(data))
    yield data
    yield bytes(-len(data) % tarfile.BLOCKSIZE)


def _tar_header(name: bytes, size: int) -> bytes:
    """The header of a file in the USTAR format; its name has at most 100 bytes."""
    octal = b"%011o" % size
    check = b"%06o\0 " % (_OTHERS + sum(name) + sum(octal))
    return b"".join((name.ljust(100, b"\0"), _BEFORE_SIZE, octal, _BEFORE_SUM, check, _AFTER_SUM))
