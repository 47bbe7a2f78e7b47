"""The parts of a sample's file: what each stretch of its bytes is, for people.

Files may be anybody's, and damaged: parts end where they cannot be followed any further.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from worker.media.samples.record import CREDENTIALS

SIGNATURE = b"\x89PNG\r\n\x1a\n"
REST = "what follows"  # bytes that belong to no part

_CHUNKS = {
    b"IHDR": "the size of the picture",
    b"IDAT": "the pixels",
    b"IEND": "the end of the file",
    b"eXIf": "the EXIF data",
    b"caBX": "the signed manifest",
    b"fmt ": "the format of the sound",
    b"data": "the sound",
    b"LIST": "the comments",
    b"C2PA": "the signed manifest",
    b"id3 ": "the ID3 tags",
    b"_PMX": "the XMP data",
}
_TEXTS = {b"tEXt", b"iTXt", b"zTXt"}
_NAMES = {"genmill": "the record", "XML:com.adobe.xmp": "the XMP data"}


class Part(NamedTuple):
    """Bytes `start` to `stop` of a file."""

    name: str
    start: int
    stop: int
    intact: bool = True  # as far as the part itself can tell


def png_parts(data: bytes) -> Iterator[Part]:
    """The chunks of a PNG file; one whose checksum is wrong is not intact."""
    yield Part("the signature of the file", 0, min(len(data), len(SIGNATURE)))
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        stop = at + 12 + size
        if stop > len(data):
            break
        intact = zlib.crc32(data[at + 4 : stop - 4]) == int.from_bytes(data[stop - 4 : stop])
        yield Part(_png_name(name, data[at + 8 : stop - 4]), at, stop, intact)
        at = stop
        if name == b"IEND":
            break
    yield from _rest(data, at)


def riff_parts(data: bytes) -> Iterator[Part]:
    """The chunks of a WAV file."""
    yield Part("the header of the file", 0, min(len(data), 12))
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        stop = min(len(data), at + 8 + size + size % 2)
        yield Part(_CHUNKS.get(name, f"chunk {_shown(name)}"), at, stop, at + 8 + size <= len(data))
        at = stop
    yield from _rest(data, at)


def line_parts(data: bytes) -> Iterator[Part]:
    """The record of a text, the text and its signed manifest."""
    signed = data.rfind(f',"{CREDENTIALS}":"'.encode())
    end = len(data) if signed < 0 else signed
    at = data.rfind(b'"text":', 0, end)
    yield Part("the record", 0, end if at < 0 else at)
    if at >= 0:
        yield Part("the text", at, end)
    if end < len(data):
        yield Part(_CHUNKS[b"C2PA"], end, len(data))


def _rest(data: bytes, at: int) -> Iterator[Part]:
    if at < len(data):
        yield Part(REST, at, len(data), intact=False)


def _png_name(name: bytes, content: bytes) -> str:
    if name not in _TEXTS:
        return _CHUNKS.get(name, f"chunk {_shown(name)}")
    keyword = _shown(content[:80].partition(b"\0")[0])
    return _NAMES.get(keyword, f"the text {keyword!r}")


def _shown(name: bytes) -> str:
    return "".join(each if each.isprintable() else "?" for each in name.decode("latin-1"))
