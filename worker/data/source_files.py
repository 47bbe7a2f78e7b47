"""The files of a folder or a zip, one after another, within limits that a hostile one runs into.

Nothing is ever extracted: a name is a label and a line in a report, never a path to write to.
"""

import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from db.errors import BadInput

MAX_MEMBERS = 10_000_000
MAX_MEMBER_BYTES = 64 << 20
MAX_RATIO = 200  # unpacked to packed; real pictures and texts stay far below
_SMALL = 1 << 20  # below this, any ratio does no harm


@dataclass(frozen=True)
class Member:
    """One file: its name inside, with `/`, and how to open it (`BadInput` where it may not be)."""

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]

    @property
    def parents(self) -> tuple[str, ...]:
        """The folders that it lies in, outermost first."""
        return PurePosixPath(self.name).parts[:-1]

    @property
    def suffix(self) -> str:
        """The ending of its name, in lower case, with the dot."""
        return PurePosixPath(self.name).suffix.lower()


def members(path: Path) -> Iterator[Member]:
    """The regular files of folder or zip `path`, hidden ones left out, in a fixed order."""
    found = _in_folder(path, "") if path.is_dir() else _in_zip(path)
    for count, member in enumerate(found):
        if count >= MAX_MEMBERS:
            raise BadInput(f"{path.name}: more than {MAX_MEMBERS:,} files; add it in parts")
        yield member


def _in_folder(folder: Path, prefix: str) -> Iterator[Member]:
    """One folder's names are in memory at a time; links to folders are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _in_folder(path, f"{prefix}{entry.name}/")
        elif entry.is_file():
            yield Member(prefix + entry.name, partial(_open_file, path))


def _open_file(path: Path) -> IO[bytes]:
    size = path.stat().st_size
    if size > MAX_MEMBER_BYTES:
        raise BadInput(f"{size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
    return path.open("rb")


def _in_zip(path: Path) -> Iterator[Member]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise BadInput(f"{path.name}: not a readable zip ({error})") from error
    with archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            parts = PurePosixPath(info.filename).parts
            hidden = any(part.startswith(".") and part != ".." for part in parts)
            if not (info.is_dir() or hidden or "__MACOSX" in parts):
                yield Member(info.filename, partial(_open_packed, archive, info))


def _open_packed(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """Unpack a file. Reading stops at the size its entry states, so checking that will do."""
    if ".." in PurePosixPath(info.filename).parts or info.filename.startswith("/"):
        raise BadInput("its name leads out of the archive")
    if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG}:  # some write no type
        raise BadInput("a link or device, not a regular file")
    if info.file_size > MAX_MEMBER_BYTES:
        raise BadInput(f"{info.file_size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
    if info.file_size > _SMALL and info.file_size > MAX_RATIO * info.compress_size:
        raise BadInput(f"packed more than {MAX_RATIO} to 1, as only archive bombs are")
    if info.flag_bits & 1:
        raise BadInput("encrypted")
    # in memory: a picture's header is read by the byte, which zipfile is slow at
    return io.BytesIO(archive.read(info))
