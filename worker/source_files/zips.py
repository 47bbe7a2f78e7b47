"""The files of a zip."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO

from db.errors import BadInput, raise_outage
from db.path_errors import reading
from worker.source_files.encodings import decode_names
from worker.source_files.members import (
    MAX_MEMBER_BYTES,
    Member,
    Rejects,
    check_size,
    in_memory,
    unpacking,
)
from worker.source_files.names import archived_name_error, clean_name, is_system

_UTF8_FLAG = 0x800
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_OTHER_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 97: "WavPack", 98: "PPMd"}
_UNICODE_PATH = 0x7075  # the extra field of Info-ZIP


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip; `BadInput` if it is none or damaged."""
    try:
        with reading(path):
            return zipfile.ZipFile(path)
    except BadInput:
        raise
    except Exception as error:  # damaged tables give many kinds of errors
        raise_outage(error)
        raise BadInput(
            f"{path.name}: not a readable zip ({error})", remedy="download or pack it again"
        ) from error


def zip_members(archive: zipfile.ZipFile, rejects: Rejects) -> Iterator[Member]:
    """The regular files in the order of their names; others go to `rejects`.

    Of several of one name the last counts, as for every program that unpacks a zip.
    """
    entries = archive.infolist()
    names = _names(entries)
    newest = dict(zip(names, entries, strict=True))
    for name, entry in sorted(zip(names, entries, strict=True), key=lambda pair: pair[0]):
        if name.endswith(("/", "\\")):
            continue
        reason = _reason_to_leave_out(entry) or archived_name_error(name, newest[name] is entry)
        if is_system(clean_name(name)):
            rejects.ignore(clean_name(name))
        elif reason:
            rejects.add(name, reason)
        else:
            yield Member(clean_name(name), partial(_open, archive, entry))


def _reason_to_leave_out(entry: zipfile.ZipInfo) -> str | None:
    if stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG}:  # 0: not stored
        return "a link or device, not a regular file"
    if entry.flag_bits & 1:
        return "encrypted; pack it without a password"
    if entry.compress_type not in _METHODS:
        method = _OTHER_METHODS.get(entry.compress_type, f"method {entry.compress_type}")
        return f"compressed by {method}, which is not read; pack it by the usual deflate"
    return None


def _names(entries: list[zipfile.ZipInfo]) -> list[str]:
    """The names of all entries; without a flag that they are UTF-8 their encoding is guessed."""
    plain = [e for e in entries if not e.flag_bits & _UTF8_FLAG and not e.orig_filename.isascii()]
    decoded = decode_names([entry.orig_filename.encode("cp437") for entry in plain])
    found = dict(zip(map(id, plain), decoded, strict=True))
    for entry in plain:
        if name := _unicode_path(entry):
            found[id(entry)] = name
    return [found.get(id(entry), entry.filename).partition("\0")[0] for entry in entries]


def _unicode_path(entry: zipfile.ZipInfo) -> str | None:
    """The name in the Unicode path field of an entry, if that still belongs to its name."""
    rest = entry.extra
    while len(rest) >= 9:
        field, size = struct.unpack_from("<HH", rest)
        if field == _UNICODE_PATH:
            (checksum,) = struct.unpack_from("<I", rest, 5)
            fits = checksum == zlib.crc32(entry.orig_filename.encode("cp437"))
            return rest[9 : 4 + size].decode("utf-8", "replace") if fits else None
        rest = rest[4 + size :]
    return None


def _open(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, max_bytes: int
) -> AbstractContextManager[IO[bytes]]:
    """Unpack a file. Reading stops at the size in its entry, so checking that size is enough."""
    check_size(entry.file_size, max_bytes, packed=entry.compress_size)
    if entry.file_size > MAX_MEMBER_BYTES:
        return unpacking(lambda: archive.open(entry))
    return unpacking(lambda: in_memory(archive.read(entry)))
