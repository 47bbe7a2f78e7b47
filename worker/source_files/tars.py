"""The files of a tar, plain or compressed by gzip, bzip2, xz or Zstandard."""

import bz2
import gzip
import lzma
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from backports import zstd

from db.errors import BadInput, raise_outage
from db.path_errors import reading
from worker.files import CHUNK, full_disk
from worker.source_files.encodings import decode_names
from worker.source_files.members import (
    MAX_MEMBER_BYTES,
    MAX_RATIO,
    SMALL,
    Member,
    Rejects,
    check_size,
    in_memory,
    unpacking,
)
from worker.source_files.names import archived_name_error, clean_name, is_system

_TAR_NAME = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|tzst)$")


def _open_xz(file: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], lzma.LZMAFile(file))


_COMPRESSIONS: dict[bytes, tuple[str, Callable[[IO[bytes]], IO[bytes]]]] = {
    b"\x1f\x8b": ("gzip", lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file))),
    b"BZh": ("bzip2", lambda file: cast(IO[bytes], bz2.BZ2File(file))),
    b"\xfd7zXZ\0": ("xz", _open_xz),
    b"\x28\xb5\x2f\xfd": ("Zstandard", lambda file: cast(IO[bytes], zstd.ZstdFile(file))),
}


def compression_of(path: Path) -> str | None:
    """The name of the program that compressed a file, if any."""
    with path.open("rb") as file:
        head = file.read(6)
    return next((name for mark, (name, _) in _COMPRESSIONS.items() if head.startswith(mark)), None)


def is_tar(path: Path) -> bool:
    """Whether a file is a tar, compressed or not, judged by its name or its first block."""
    if _TAR_NAME.search(path.name.lower()):
        return True
    try:
        with path.open("rb") as packed, _decompressed(packed) as file:
            tarfile.TarInfo.frombuf(file.read(512), "utf-8", "surrogateescape")
    except Exception as error:  # not even compressed data, or no tar in it
        raise_outage(error)
        return False
    return True


@contextmanager
def open_tar(path: Path, scratch: Path | None) -> Iterator[tarfile.TarFile]:
    """Open a tar; `BadInput` if it is damaged. A compressed one is first unpacked into `scratch`.

    What is unpacked is a file without a name, gone with the archive.
    """
    with ExitStack() as stack:
        with reading(path):
            file: IO[bytes] = stack.enter_context(path.open("rb"))
        if compression_of(path):
            file = stack.enter_context(_unpack(path, file, scratch))
        try:
            archive = stack.enter_context(tarfile.TarFile(fileobj=file, errors="surrogateescape"))
            archive.getmembers()
            _check_end(archive, file)
        except Exception as error:  # damaged headers give many kinds of errors
            raise_outage(error)
            raise _damaged(path, error) from error
        yield archive


def tar_members(archive: tarfile.TarFile, rejects: Rejects) -> Iterator[Member]:
    """The regular files in the order of their names; others go to `rejects`.

    Of several of one name the last counts, as when a tar is unpacked.
    """
    entries = archive.getmembers()
    names = decode_names([e.name.encode("utf-8", "surrogateescape") for e in entries])
    newest = dict(zip(names, entries, strict=True))
    for name, entry in sorted(zip(names, entries, strict=True), key=lambda pair: pair[0]):
        cleaned = clean_name(name)
        if not cleaned or entry.isdir():
            continue
        is_file = entry.isreg() or entry.islnk()
        reason = archived_name_error(name, newest[name] is entry)
        if is_system(cleaned):
            rejects.ignore(cleaned)
        elif reason or not is_file:
            rejects.add(name, reason or "a link or device, not a regular file")
        else:
            yield Member(cleaned, partial(_open, archive, entry))


def _open(
    archive: tarfile.TarFile, entry: tarfile.TarInfo, max_bytes: int
) -> AbstractContextManager[IO[bytes]]:
    check_size(entry.size, max_bytes)

    def extracted() -> IO[bytes]:
        file = archive.extractfile(entry)  # of a hard link, the file that it is a name of
        if file is None:
            raise BadInput("a link to a file that the archive does not hold")
        return file

    def read() -> IO[bytes]:
        with extracted() as file:
            data = file.read(MAX_MEMBER_BYTES + 1)
        check_size(len(data), max_bytes)
        return in_memory(data)

    return unpacking(extracted if entry.size > MAX_MEMBER_BYTES else read)


def _decompressed(packed: IO[bytes]) -> IO[bytes]:
    head = packed.read(6)
    packed.seek(0)
    for mark, (_, decompress) in _COMPRESSIONS.items():
        if head.startswith(mark):
            return decompress(packed)
    return packed


def _check_end(archive: tarfile.TarFile, file: IO[bytes]) -> None:
    """Refuse a header that is damaged or cut off, where the library stops without a word."""
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("a header is damaged or cut off")


@contextmanager
def _unpack(path: Path, packed: IO[bytes], scratch: Path | None) -> Iterator[IO[bytes]]:
    """What a compressed file holds, in a file without a name."""
    size, done = path.stat().st_size, 0
    with (
        full_disk(scratch or Path(tempfile.gettempdir())),
        tempfile.TemporaryFile(dir=scratch) as target,
    ):
        with _decompressed(packed) as file:
            while chunk := _read(path, file):
                done += len(chunk)
                if done > SMALL and done > MAX_RATIO * size:
                    raise BadInput(
                        f"{path.name}: packed more than {MAX_RATIO} to 1, like an archive bomb"
                    )
                target.write(chunk)
        target.seek(0)
        yield target


def _read(path: Path, file: IO[bytes]) -> bytes:
    try:
        with reading(path):
            return file.read(CHUNK)
    except BadInput:
        raise
    except Exception as error:  # each decompressor has its own errors for damaged data
        raise_outage(error)
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadInput:
    reason = str(error) or type(error).__name__
    return BadInput(
        f"{path.name}: damaged or cut short ({reason})", remedy="download or pack it again"
    )
