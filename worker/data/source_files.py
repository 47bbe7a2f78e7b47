"""The files of a user's folder or zip, one after another, within limits for hostile ones.

Nothing is extracted to disk: a name is a label or a line of a report, never a path to write to.
Whatever keeps a file from being read is `BadInput`, so that it is left out with its reason and the
others are read.
"""

import io
import os
import stat
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from db.errors import BadInput

MAX_MEMBERS = 10_000_000
MAX_MEMBER_BYTES = 64 << 20
MAX_RATIO = 200  # unpacked to packed size; real images and texts stay far below
MAX_REPORTED = 1000
_SMALL = 1 << 20  # bytes up to which any ratio is harmless

Found = TypeVar("Found")


@dataclass(frozen=True)
class Reject:
    """A file or line that was left out, and why."""

    name: str
    reason: str


class Rejects:
    """What was left out: all are counted, the first `MAX_REPORTED` are kept."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Reject] = []

    def add(self, name: str, reason: str) -> None:
        """Note that the file or line `name` was left out."""
        self.count += 1
        if len(self.first) < MAX_REPORTED:
            self.first.append(Reject(name, reason))


@dataclass(frozen=True)
class Member:
    """A file: its name inside the folder or zip, with `/`, and how to open it.

    `open` raises `BadInput` if it cannot or must not be opened.
    """

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]

    @property
    def parents(self) -> tuple[str, ...]:
        """The folders around it, outermost first."""
        return PurePosixPath(self.name).parts[:-1]

    @property
    def suffix(self) -> str:
        """The suffix of its name, in lower case, with the dot."""
        return PurePosixPath(self.name).suffix.lower()


@contextmanager
def read_errors(name: str = "") -> Iterator[None]:
    """Raise `BadInput` in place of the system's errors, such as a lack of permission.

    `name` names the file in the error, if the caller does not.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a decoder's error, not the system's
            raise
        where = f"{name}: " if name else ""
        raise BadInput(f"{where}cannot be read: {error.strerror}") from error


def members(path: Path, rejects: Rejects | None = None) -> Iterator[Member]:
    """The regular files of folder or zip `path` in a fixed order, without hidden ones.

    Inner folders that cannot be read go to `rejects`.
    """
    rejects = rejects or Rejects()
    found = _in_folder(path, "", rejects) if path.is_dir() else _in_zip(path)
    for count, member in enumerate(found):
        if count >= MAX_MEMBERS:
            raise BadInput(
                f"{path.name}: more than {MAX_MEMBERS:,} files", remedy="add it in parts"
            )
        yield member


def read_each(
    found: Iterable[Member],
    suffixes: Collection[str],
    read: Callable[[Member], Found],
    rejects: Rejects,
) -> Iterator[Found]:
    """What `read` returns for each file with one of the `suffixes`.

    Files with another suffix, and those for which `read` raises `BadInput`, go to `rejects`.
    """
    for member in found:
        try:
            if member.suffix not in suffixes:
                raise BadInput(f"its name ends in none of {', '.join(sorted(suffixes))}")
            made = read(member)
        except BadInput as error:
            rejects.add(member.name, str(error))
        else:
            yield made


def _in_folder(folder: Path, prefix: str, rejects: Rejects) -> Iterator[Member]:
    """Keeps the names of one folder in memory at a time; does not follow links to folders."""
    with read_errors(), os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if entry.name.startswith("."):
            continue
        try:
            with read_errors():
                is_folder, is_file = entry.is_dir(follow_symlinks=False), entry.is_file()
            if is_folder:
                yield from _in_folder(Path(entry.path), f"{name}/", rejects)
            elif is_file:
                yield Member(name, partial(_open_file, Path(entry.path)))
        except BadInput as error:
            rejects.add(name, str(error))


@contextmanager
def _open_file(path: Path) -> Iterator[IO[bytes]]:
    with read_errors(), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_MEMBER_BYTES:
            raise BadInput(f"{size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
        yield file


def _in_zip(path: Path) -> Iterator[Member]:
    try:
        with read_errors(path.name):
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
    """Unpack a file. Reading stops at the size in its entry, so checking that size is enough."""
    if ".." in PurePosixPath(info.filename).parts or info.filename.startswith("/"):
        raise BadInput("its name leads out of the archive")
    if stat.S_IFMT(info.external_attr >> 16) not in {
        0,
        stat.S_IFREG,
    }:  # 0: some programs store no type
        raise BadInput("a link or device, not a regular file")
    if info.file_size > MAX_MEMBER_BYTES:
        raise BadInput(f"{info.file_size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
    if info.file_size > _SMALL and info.file_size > MAX_RATIO * info.compress_size:
        raise BadInput(f"packed more than {MAX_RATIO} to 1, like an archive bomb")
    if info.flag_bits & 1:
        raise BadInput("encrypted", remedy="pack it without a password")
    try:
        data = archive.read(info)
    except Exception as error:  # each decompressor has its own errors for damaged data
        raise BadInput(f"cannot be unpacked: {str(error) or type(error).__name__}") from error
    # in memory, because image headers are read byte by byte, at which zipfile is slow
    return io.BytesIO(data)
