"""A PNG without the chunks that its pixels do not need, for files whose comments are damaged.

Viewers skip an ancillary chunk with a wrong checksum or an oversized comment; Pillow refuses the
whole file.
"""

import io
import struct
import zlib
from typing import IO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


def without_comments(file: IO[bytes]) -> IO[bytes] | None:
    """The PNG with the chunks of its pixels alone; None if it is no PNG or has no others."""
    file.seek(0)
    data = file.read()
    if not data.startswith(_SIGNATURE):
        return None
    kept, at, dropped = [_SIGNATURE], len(_SIGNATURE), False
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + size]
        at += len(chunk)
        if name not in _NEEDED:
            dropped = True
        elif name != b"tRNS" or chunk[-4:] == zlib.crc32(chunk[4:-4]).to_bytes(4, "big"):
            kept.append(chunk)
    return io.BytesIO(b"".join(kept)) if dropped else None
