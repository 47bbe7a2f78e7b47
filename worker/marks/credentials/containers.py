"""The files that hold a manifest store: a chunk `caBX` in PNG, a chunk `C2PA` in RIFF.

Source: C2PA Technical Specification 2.2, appendix A.3.
"""

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar


class Container(ABC):
    """A kind of file. Signed, it is `before + chunk + after`: all but the chunk is bound."""

    media_type: ClassVar[str]

    @abstractmethod
    def split(self, content: bytes, store_size: int) -> tuple[bytes, bytes]:
        """What is before and after the chunk, with lengths corrected for a store of this size."""

    @abstractmethod
    def chunk(self, store: bytes | bytearray) -> bytes:
        """The chunk that holds a manifest store."""

    @abstractmethod
    def place(self, size: int, store_size: int) -> range:
        """Where the chunk is in a file of this size that was signed as above."""

    @abstractmethod
    def find(self, data: bytes) -> tuple[range, range] | None:
        """Where the first chunk is in a file, and the store in it; None if there is none."""

    @abstractmethod
    def strip(self, data: bytes) -> bytes:
        """A file as it was before it was signed."""


class Png(Container):
    """The chunk follows the header."""

    media_type = "image/png"
    signature = b"\x89PNG\r\n\x1a\n"
    header_end = 33

    def split(self, content: bytes, store_size: int) -> tuple[bytes, bytes]:
        """See `Container.split`."""
        return content[: self.header_end], content[self.header_end :]

    def chunk(self, store: bytes | bytearray) -> bytes:
        """See `Container.chunk`."""
        check = zlib.crc32(store, zlib.crc32(b"caBX"))
        return b"".join((len(store).to_bytes(4), b"caBX", store, check.to_bytes(4)))

    def place(self, size: int, store_size: int) -> range:
        """See `Container.place`."""
        return range(self.header_end, self.header_end + 12 + store_size)

    def find(self, data: bytes) -> tuple[range, range] | None:
        """See `Container.find`."""
        for kind, where in self._chunks(data):
            if kind == b"caBX":
                return where, range(where.start + 8, where.stop - 4)
        return None

    def strip(self, data: bytes) -> bytes:
        """See `Container.strip`."""
        kept, end = [data[:8]], 8
        for kind, where in self._chunks(data):
            end = where.stop
            if kind != b"caBX":
                kept.append(data[where.start : end])
        return b"".join((*kept, data[end:]))

    def _chunks(self, data: bytes) -> Iterator[tuple[bytes, range]]:
        at = len(self.signature)
        while at + 12 <= len(data):
            size, kind = struct.unpack_from(">I4s", data, at)
            yield kind, range(at, at + 12 + size)
            at += 12 + size


class Riff(Container):
    """The chunk is the last one; a byte after one of an odd size makes it even, and is bound."""

    media_type = "audio/wav"

    def split(self, content: bytes, store_size: int) -> tuple[bytes, bytes]:
        """See `Container.split`."""
        [size] = struct.unpack_from("<I", content, 4)
        size += 8 + store_size + store_size % 2
        before = b"".join((content[:4], struct.pack("<I", size), content[8:]))
        return before, bytes(store_size % 2)

    def chunk(self, store: bytes | bytearray) -> bytes:
        """See `Container.chunk`."""
        return b"".join((b"C2PA", struct.pack("<I", len(store)), store))

    def place(self, size: int, store_size: int) -> range:
        """See `Container.place`."""
        end = size - store_size % 2
        return range(end - 8 - store_size, end)

    def find(self, data: bytes) -> tuple[range, range] | None:
        """See `Container.find`."""
        for kind, where, size in self._chunks(data):
            if kind == b"C2PA":
                end = where.start + 8 + size
                return range(where.start, end), range(where.start + 8, end)
        return None

    def strip(self, data: bytes) -> bytes:
        """See `Container.strip`."""
        kept, end, dropped = [data[8:12]], 12, 0
        for kind, where, _ in self._chunks(data):
            end = where.stop
            if kind == b"C2PA":
                dropped += len(where)
            else:
                kept.append(data[where.start : end])
        [size] = struct.unpack_from("<I", data, 4)
        return b"".join((data[:4], struct.pack("<I", max(0, size - dropped)), *kept, data[end:]))

    def _chunks(self, data: bytes) -> Iterator[tuple[bytes, range, int]]:
        at = 12
        while at + 8 <= len(data):
            kind, size = struct.unpack_from("<4sI", data, at)
            end = at + 8 + size + size % 2
            yield kind, range(at, end), size
            at = end


CONTAINERS: dict[str, Container] = {".png": Png(), ".wav": Riff()}  # by the suffix of samples
