"""The files that hold a manifest store: a chunk `caBX` in PNG or `C2PA` in RIFF, a key in JSON.

Source: C2PA Technical Specification 2.2, appendix A.3; for texts section 11.4, external manifests.
"""

import base64
import json
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from worker.media.samples.record import CREDENTIALS

Bytes = bytes | memoryview


class Signed(NamedTuple):
    """A manifest store in a file, and where the chunk is that holds it."""

    chunk: range
    store: bytes


class Asset(NamedTuple):
    """What a manifest store binds, and the store if it is not inside of that."""

    data: bytes
    media_type: str
    store: bytes | None = None


class Container(ABC):
    """A kind of file. Signed, it is `before + chunk + after`: all but the chunk is bound."""

    media_type: ClassVar[str]  # of what is bound
    # whether the store is that of a file without one, and names no place in it
    is_external: ClassVar[bool] = False

    def bound(self, before: Bytes, after: Bytes) -> tuple[Bytes, ...]:
        """What a store's hard binding is the digest of; `ValueError` for what is no such file."""
        return before, after

    def asset(self, data: bytes) -> Asset | None:
        """What a C2PA reader is given of a file that may be signed; None if it is not.

        Raises `ValueError` for one that cannot be read.
        """
        return Asset(data, self.media_type)

    def insert(self, content: bytes, store: bytes) -> bytes:
        """The signed file."""
        before, after = self.split(content, len(store))
        return b"".join((before, self.chunk(store), after))

    @abstractmethod
    def split(self, content: bytes, store_size: int) -> tuple[bytes, bytes]:
        """What is before and after the chunk, with lengths corrected for a store of this size."""

    @abstractmethod
    def chunk(self, store: bytes | bytearray) -> bytes:
        """The chunk that holds a manifest store."""

    @abstractmethod
    def find(self, data: bytes) -> Signed | None:
        """The first store in a file; None if there is none."""

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

    def find(self, data: bytes) -> Signed | None:
        """See `Container.find`."""
        for kind, where in self._chunks(data):
            if kind == b"caBX":
                return Signed(where, data[where.start + 8 : where.stop - 4])
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

    def find(self, data: bytes) -> Signed | None:
        """See `Container.find`."""
        for kind, where, size in self._chunks(data):
            if kind == b"C2PA":
                end = where.start + 8 + size
                return Signed(range(where.start, end), data[where.start + 8 : end])
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


class Line(Container):
    """A line of JSON with a text: the last key is the store in base64, as it may lie in a sidecar.

    C2PA knows no place in JSON. So the store is that of the text alone, in UTF-8: any reader takes
    it together with a file of the text. What else is in the line is bound by an assertion of ours.
    """

    media_type = "text/plain"
    is_external = True

    _key = f'"{CREDENTIALS}"'.encode()
    _begin, _end = f',"{CREDENTIALS}":"'.encode(), b'"'

    def bound(self, before: Bytes, after: Bytes) -> tuple[Bytes, ...]:
        """The text."""
        return (_text_of(_parsed(b"".join((before, after)))),)

    def asset(self, data: bytes) -> Asset | None:
        """See `Container.asset`; however the JSON is written."""
        if self._key not in data or CREDENTIALS not in (line := _parsed(data)):
            return None
        store = line[CREDENTIALS]
        if not isinstance(store, str):
            raise ValueError(f"its {CREDENTIALS!r} is no text")  # noqa: TRY004 - as below
        return Asset(_text_of(line), self.media_type, base64.b64decode(store, validate=True))

    def split(self, content: bytes, store_size: int) -> tuple[bytes, bytes]:
        """See `Container.split`."""
        return content[:-1], content[-1:]

    def chunk(self, store: bytes | bytearray) -> bytes:
        """See `Container.chunk`."""
        return b"".join((self._begin, base64.b64encode(store), self._end))

    def find(self, data: bytes) -> Signed | None:
        """See `Container.find`; quotes in texts are escaped, so this is a key, and the last."""
        at = data.rfind(self._begin)
        if at < 0 or not data.endswith(self._end + b"}"):
            return None
        try:
            store = base64.b64decode(data[at + len(self._begin) : -2], validate=True)
        except ValueError:
            return None
        return Signed(range(at, len(data) - 1), store)

    def strip(self, data: bytes) -> bytes:
        """See `Container.strip`."""
        found = self.find(data)
        return data if found is None else data[: found.chunk.start] + data[found.chunk.stop :]


def _parsed(data: bytes) -> dict[str, object]:
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - what was read is wrong, not the caller
    return found


def _text_of(line: dict[str, object]) -> bytes:
    text = line.get("text")
    if not isinstance(text, str):
        raise ValueError("it has no text")  # noqa: TRY004 - as above
    return text.encode()


# by the suffix of samples
CONTAINERS: dict[str, Container] = {".png": Png(), ".wav": Riff(), ".json": Line()}
