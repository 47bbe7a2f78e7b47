"""Two EXIF fields: the copyright and the user's comment. Written here; Pillow reads them.

Source: Exif 3.0, CIPA DC-008; TIFF 6.0.
"""

import struct
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from PIL import Image

from db.errors import BadInput

COPYRIGHT, COMMENT = 0x8298, 0x9286
_IFD = 0x8769  # the directory of a picture that holds the comment
_ASCII, _LONG, _UNDEFINED = 2, 4, 7  # types of fields
_CODE = b"ASCII\0\0\0"  # of a comment's characters
# Of the first directory. At 8, as is usual, exiftool takes it for a C2PA box: they begin there too.
_START = 10

_Field = tuple[int, int, bytes]  # its number, type and value


def write_exif(texts: Mapping[int, str]) -> bytes:
    """A TIFF block with those fields of the two that are given. The comment is ASCII."""
    fields: list[_Field] = []
    if COPYRIGHT in texts:
        fields.append((COPYRIGHT, _ASCII, texts[COPYRIGHT].encode() + b"\0"))
    head, own = (b"II*\0" + struct.pack("<I", _START)).ljust(_START, b"\0"), b""
    if COMMENT in texts:
        size = len(_directory([*fields, (_IFD, _LONG, bytes(4))], _START))
        fields.append((_IFD, _LONG, struct.pack("<I", _START + size)))
        comment = _CODE + texts[COMMENT].encode("ascii")
        own = _directory([(COMMENT, _UNDEFINED, comment)], _START + size)
    return head + _directory(fields, _START) + own


@lru_cache(maxsize=64)  # most samples of a job have the same
def read_exif(data: bytes) -> Mapping[int, str]:
    """Those fields of the two that a block has; `BadInput` if it cannot be parsed."""
    exif = Image.Exif()
    try:
        exif.load(data)
        found = {COPYRIGHT: exif.get(COPYRIGHT), COMMENT: exif.get_ifd(_IFD).get(COMMENT)}
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error) as error:
        raise BadInput(f"the EXIF fields cannot be read: {error}") from None
    return MappingProxyType({number: _text(value) for number, value in found.items() if value})


def _directory(fields: list[_Field], place: int) -> bytes:
    """An image file directory that begins at `place`, and behind it the values of over 4 bytes."""
    values_at = place + 2 + 12 * len(fields) + 4
    entries, values = b"", b""
    for number, kind, value in fields:
        held = value.ljust(4, b"\0")
        if len(value) > 4:
            held = struct.pack("<I", values_at + len(values))
            values += value + bytes(len(value) % 2)
        count = 1 if kind == _LONG else len(value)
        entries += struct.pack("<HHI", number, kind, count) + held
    return struct.pack("<H", len(fields)) + entries + bytes(4) + values


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.removeprefix(_CODE).rstrip(b"\0").decode("utf-8", "replace")
    try:  # Pillow takes the bytes of a text for Latin-1
        return str(value).encode("latin-1").decode().rstrip("\0")
    except UnicodeError:
        return str(value)
