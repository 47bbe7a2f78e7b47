"""The files of a user's folder or zip, one after another, within limits that a hostile one meets.

Nothing is ever extracted: a name is a label and a line in a report, never a path to write to.
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
MAX_RATIO = 200  # unpacked to packed; real images and texts stay far below
MAX_REPORTED = 1000
_SMALL = 1 << 20  # below this, any ratio does no harm

Found = TypeVar("Found")


@dataclass(frozen=True)
class Reject:
    """A file or line that was left out, and why."""

    name: str
    reason: str


class Rejects:
    """What is left out: all are counted, the first `MAX_REPORTED` are kept."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Reject] = []

    def add(self, name: str, reason: str) -> None:
        """Leave out the file or line `name`."""
        self.count += 1
        if len(self.first) < MAX_REPORTED:
            self.first.append(Reject(name, reason))


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


@contextmanager
def reading(name: str = "") -> Iterator[None]:
    """Raise `BadInput` where the system refuses to read a file, such as one of another user's.

    `name` goes in front, where the caller does not know which file it was.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a decoder's complaint, not the system's
            raise
        where = f"{name}: " if name else ""
        raise BadInput(f"{where}cannot be read: {error.strerror}") from error


def members(path: Path, rejects: Rejects | None = None) -> Iterator[Member]:
    """The regular files of folder or zip `path`, hidden ones left out, in a fixed order.

    Folders inside that cannot be read go to `rejects`.
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
    """What `read` makes of each file of a name that ends in one of `suffixes`.

    A file of another name, and one of which `read` raises `BadInput`, goes to `rejects`.
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
    """One folder's names are in memory at a time; links to folders are not followed."""
    with reading(), os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if entry.name.startswith("."):
            continue
        try:
            with reading():
                is_folder, is_file = entry.is_dir(follow_symlinks=False), entry.is_file()
            if is_folder:
                yield from _in_folder(Path(entry.path), f"{name}/", rejects)
            elif is_file:
                yield Member(name, partial(_open_file, Path(entry.path)))
        except BadInput as error:
            rejects.add(name, str(error))


@contextmanager
def _open_file(path: Path) -> Iterator[IO[bytes]]:
    with reading(), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_MEMBER_BYTES:
            raise BadInput(f"{size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
        yield file


def _in_zip(path: Path) -> Iterator[Member]:
    try:
        with reading(path.name):
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
    try:
        data = archive.read(info)
    except Exception as error:  # each decompressor has its own errors for what is damaged
        raise BadInput(f"cannot be unpacked: {str(error) or type(error).__name__}") from error
    # in memory: a picture's header is read by the byte, which zipfile is slow at
    return io.BytesIO(data)
