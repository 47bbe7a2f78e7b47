"""The chunks of a PNG file, written and walked. Source: PNG, third edition, W3C 2025."""

import struct
import zlib
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar, cast

from db.errors import BadInput

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(SIGNATURE) + 12 + 13  # where the chunk IHDR ends
MAX_TEXT_BYTES = 16 << 20  # of all texts of a file that are compressed
EXIF = b"eXIf"
SIGNED = b"caBX"  # a manifest store of C2PA
PARAMETERS = "parameters"  # the keyword of the first of our own texts
_READ = {b"tEXt", b"iTXt", b"zTXt", EXIF}
_PARAMETERS = f"{PARAMETERS}\0".encode()
_HEAD = struct.Struct(">I4s")


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    length, check = len(data).to_bytes(4), zlib.crc32(data, zlib.crc32(name))
    return b"".join((length, name, data, check.to_bytes(4)))


def text_chunk(keyword: str, text: str) -> bytes:
    """A text chunk: of the international kind only if the text needs it."""
    try:
        return chunk(b"tEXt", f"{keyword}\0{text}".encode("latin-1"))
    except UnicodeError:
        return international_chunk(keyword, text.encode())


def international_chunk(keyword: str, text: bytes) -> bytes:
    """A chunk of a text in UTF-8: not compressed, of no language."""
    return chunk(b"iTXt", b"%b\0\0\0\0\0%b" % (keyword.encode(), text))


class Metadata(NamedTuple):
    """What a file says beside its pixels."""

    texts: tuple[tuple[str, str], ...]  # keyword and text, of each chunk of text
    exif: tuple[bytes, ...]  # blocks of EXIF fields


T = TypeVar("T")


class _Latest(Generic[T]):
    """What was read of the file that was read last: several marks read one, in turn."""

    def __init__(self, read: Callable[[bytes], T]) -> None:
        self._read, self._held = read, cast("tuple[bytes, T] | None", None)

    def read(self, data: bytes) -> T:
        held = self._held
        if held is None or held[0] is not data:
            held = self._held = data, self._read(data)
        return held[1]


def metadata(data: bytes) -> Metadata:
    """The texts and EXIF fields of a PNG file.

    Raises `BadInput` if one is damaged, or if the file ends before the picture does. The checksums
    of other chunks are not looked at. A few compressed bytes may be gigabytes of text: there is a
    limit for all of a file together.
    """
    return _latest_metadata.read(data)


def tag_chunks(data: bytes) -> slice:
    """Where the chunks with tags are in a file of ours: before its own texts; maybe empty."""
    return _latest_tags.read(data)


def _tag_chunks(data: bytes) -> slice:
    start = HEADER_END
    if data[start + 4 : start + 8] == SIGNED:
        start += 12 + int.from_bytes(data[start : start + 4])
    stop = start
    while stop + 12 <= len(data):
        size, name = _HEAD.unpack_from(data, stop)
        if name not in _READ or data.startswith(_PARAMETERS, stop + 8):
            break
        stop += 12 + size
    return slice(start, stop)


def _read(data: bytes) -> Metadata:
    texts, exif, left = [], [], MAX_TEXT_BYTES
    for name, content in _walk(data):
        if name == EXIF:
            exif.append(content)
            continue
        keyword, _, rest = content.partition(b"\0")
        if name == b"tEXt":
            text = rest.decode("latin-1")
        else:
            text, inflated = _decoded(name, rest, left, keyword)
            left -= inflated
        texts.append((keyword.decode("latin-1"), text))
    return Metadata(tuple(texts), tuple(exif))


def _walk(data: bytes) -> list[tuple[bytes, bytes]]:
    """The name and content of each chunk with text or EXIF fields."""
    found, at, name = [], len(SIGNATURE), b""
    if not data.startswith(SIGNATURE):
        raise BadInput(f"not a PNG file: begins with {data[:4].hex(' ') or 'nothing'}")
    while name != b"IEND":
        if at + 12 > len(data):
            raise BadInput("the PNG file is cut off")
        size, name = _HEAD.unpack_from(data, at)
        end = at + 8 + size
        if name in _READ:
            if zlib.crc32(data[at + 4 : end]).to_bytes(4) != data[end : end + 4]:
                raise BadInput(f"the chunk {name.decode()} of the PNG file is damaged")
            found.append((name, data[at + 8 : end]))
        at = end + 4
    return found


def _decoded(name: bytes, rest: bytes, left: int, keyword: bytes) -> tuple[str, int]:
    """A text, and how many bytes of it were compressed, of which there may be `left`."""
    try:
        return _inflated(name, rest, left)
    except (zlib.error, ValueError) as error:
        why = f"the PNG file's text {keyword[:80]!r} cannot be read: {error}"
        raise BadInput(why) from None


def _inflated(name: bytes, rest: bytes, left: int) -> tuple[str, int]:
    is_latin = name == b"zTXt"
    text = rest[1:] if is_latin else rest[2:].split(b"\0", 2)[-1]
    inflated = 0
    if is_latin or rest[:1] == b"\1":
        text = zlib.decompressobj().decompress(text, left + 1)
        if (inflated := len(text)) > left:
            raise ValueError(f"with others it is over {MAX_TEXT_BYTES:,} bytes, uncompressed")
    return text.decode("latin-1" if is_latin else "utf-8"), inflated


_latest_metadata, _latest_tags = _Latest(_read), _Latest(_tag_chunks)
