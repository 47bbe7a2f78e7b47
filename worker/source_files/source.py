"""What a user gave: a folder, a zip, a tar or a single file, open for reading its members."""

import itertools
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from db.errors import BadInput
from db.path_errors import reading
from worker.source_files import members as limits
from worker.source_files.folders import folder_members, open_file
from worker.source_files.members import Member, Rejects
from worker.source_files.names import entry_name
from worker.source_files.tars import is_tar, open_tar, tar_members
from worker.source_files.zips import open_zip, zip_members


@dataclass(frozen=True)
class Source:
    """A folder or archive of many members, or a file, which is its own only member."""

    path: Path
    is_single: bool
    walk: Callable[[Rejects], Iterator[Member]]

    @property
    def name(self) -> str:
        """The name of the folder, archive or file."""
        return self.path.name

    def members(self, rejects: Rejects | None = None) -> Iterator[Member]:
        """The regular files in a fixed order, without system files.

        Inner folders, links and devices that cannot be read go to `rejects`.
        """
        for count, member in enumerate(self.walk(rejects or Rejects())):
            if count >= limits.MAX_MEMBERS:
                raise BadInput(
                    f"{self.name}: more than {limits.MAX_MEMBERS:,} files", remedy="add it in parts"
                )
            yield member


@contextmanager
def open_source(path: Path, scratch: Path | None = None) -> Iterator[Source]:
    """Open what lies at `path`; compressed tars are unpacked into `scratch`.

    Raises `BadInput` if it is missing, may not be read, is a device, or a damaged archive.
    """
    with reading(path):
        _check(path)
        single = path.is_file()
        packed = single and zipfile.is_zipfile(path)
    if not single:
        yield Source(path, False, partial(folder_members, path))
    elif packed:
        with open_zip(path) as zipped:
            yield Source(path, False, partial(zip_members, zipped))
    elif is_tar(path):
        with open_tar(path, scratch) as archive:
            yield Source(path, False, partial(tar_members, archive))
    else:
        only = Member(entry_name(path.name), partial(open_file, path))
        yield Source(path, True, lambda _: iter((only,)))


def bytes_at(path: Path) -> int:
    """The size of a file, or of the files in a folder; what cannot be looked at counts nothing."""
    total = 0
    for each in itertools.chain([path], path.rglob("*")):
        with suppress(OSError):
            total += each.stat().st_size if each.is_file() else 0
    return total


def _check(path: Path) -> None:
    mode = path.stat().st_mode
    if not (S_ISDIR(mode) or S_ISREG(mode)):  # opening a pipe waits, and it is read only once
        raise BadInput(
            f"{path.name}: a pipe or device, not a file or folder",
            remedy="write what it gives into a file first",
        )
    if S_ISDIR(mode):
        any(path.iterdir())
    else:
        path.open("rb").close()
