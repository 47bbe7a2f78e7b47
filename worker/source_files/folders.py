"""The files of a folder, without hidden ones. Links to files are read, links to folders are not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from db.errors import BadInput
from worker.source_files.members import Member, Rejects, check_size, read_errors
from worker.source_files.names import entry_name, is_system


def folder_members(folder: Path, rejects: Rejects, prefix: str = "") -> Iterator[Member]:
    """The regular files in a fixed order; what cannot be read goes to `rejects`.

    Keeps the names of one folder in memory at a time.
    """
    with read_errors(), os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        own = entry_name(entry.name)
        name = prefix + own
        if is_system(own):
            rejects.ignore(name)
            continue
        try:
            if _is_folder(entry):
                yield from folder_members(Path(entry.path), rejects, f"{name}/")
            else:
                yield Member(name, partial(open_file, Path(entry.path)))
        except BadInput as error:
            rejects.add(name, str(error))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; `BadInput` for what is neither that nor a regular file.

    A link that leads nowhere counts as a file: it may stand for labels or captions, whose reader
    must not take them for missing. Opening it says what is wrong.
    """
    with read_errors():
        if entry.is_symlink() and not _leads_somewhere(entry):
            return False
        if entry.is_dir(follow_symlinks=False):
            return True
        if entry.is_file():
            return False
        if entry.is_dir():
            raise BadInput("a link to a folder", remedy="put the folder itself there")
        if entry.is_symlink():
            raise BadInput("a link to a pipe or device")
    raise BadInput("a pipe, socket or device, not a file")


def _leads_somewhere(link: os.DirEntry[str]) -> bool:
    try:
        link.stat()
    except OSError:
        return False
    return True


@contextmanager
def open_file(path: Path, max_bytes: int) -> Iterator[IO[bytes]]:
    """Open a file of at most `max_bytes`; `BadInput` if it is larger or cannot be read."""
    with read_errors(), path.open("rb") as file:
        check_size(os.fstat(file.fileno()).st_size, max_bytes)
        yield file
