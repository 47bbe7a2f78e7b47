"""Errors of the operating system as errors of Genmill that name the path at fault.

Every room turns them here, so that a fault is told in the same words wherever it is met. Most
errors name their file; a failed read or write of an open file does not, so a block also says what
it reads or writes.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from db.causes import Cause, cause_of
from db.errors import BadInput, GenmillError, ShortOfMemory, Unreachable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# and those of a disk that fails, or of a limit on open files: they may be met at any file
DISK = FULL | {errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE, errno.ENFILE}

_ACCESS = "give this user access to it"
_LINK = "correct or remove the link"
_REMEDIES = {
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EROFS: "give a folder on another file system, or mount this one writable",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give a file",
    errno.EEXIST: "move it away, or give another path",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: _LINK,
    errno.EIO: "check the disk",
    errno.ENOMEM: "free some memory",
    errno.EMFILE: "allow this process more open files (ulimit -n)",
    errno.ENFILE: "allow this machine more open files",
}


def shown(path: str | bytes | os.PathLike[Any]) -> str:
    """A path for one line of a message: what cannot be printed is escaped."""
    text = os.fsdecode(path)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def path_error(
    error: OSError, path: os.PathLike[str], *, verb: str, kind: type[GenmillError]
) -> GenmillError:
    """The error of `kind` for a path that cannot be `verb`.

    An error of the disk, such as a full one, is `Unreachable`, and a lack of memory
    `ShortOfMemory`: they say nothing of the path and what lies there.
    """
    if error.errno in FULL:
        return Unreachable(
            f"no space left on the disk of {shown(path)}", remedy="free some space and try again"
        )
    reason, remedy = explain(error, Path(path))
    if cause_of(error) is Cause.SERVICE:
        kind = Unreachable
    elif error.errno == errno.ENOMEM:
        kind = ShortOfMemory
    return kind(f"{shown(path)} cannot be {verb}: {reason}", remedy=remedy)


@contextmanager
def reading(path: os.PathLike[str]) -> Iterator[None]:
    """Raise `BadInput` in place of the system's errors about `path` and what lies in it.

    Errors of the disk are `Unreachable`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a decoder's error, not the system's
            raise
        at_fault = named_path(error, path)
        raise path_error(error, at_fault, verb="read", kind=BadInput) from error


def require_file(path: Path) -> None:
    """Raise `BadInput` unless a file is there: a device may never end, a pipe is read only once."""
    with reading(path):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise _no_file(path)


def read_whole(
    path: Path, noun: str, *, limit_bytes: int, piped: bool = False, remedy: str | None = None
) -> bytes:
    """The bytes of a small file. Raises `BadInput` for a larger one, and for what is not a file.

    With `piped`, also those of a pipe, as of `<(command)` in a shell; one that nobody has opened to
    write into is empty, and not waited for. `noun` says what the file should be, as in "a policy".
    """
    with reading(path), open(path, "rb", opener=_open_at_once) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not (stat.S_ISREG(mode) or (piped and stat.S_ISFIFO(mode))):
            raise _no_file(path)
        os.set_blocking(file.fileno(), True)
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise BadInput(
            f"{shown(path)} is too large for {noun}: it has more than {limit_bytes:,} bytes",
            remedy=remedy,
        )
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe without waiting until somebody writes into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _no_file(path: Path) -> BadInput:
    return BadInput(f"{shown(path)} is not a file", remedy="give a file")


def as_genmill(error: OSError | GenmillError) -> GenmillError:
    """The error, as a `GenmillError` if the system raised it where nobody said what was used."""
    if isinstance(error, GenmillError):
        return error
    if named := _name(error):
        return path_error(error, Path(named), verb="used", kind=GenmillError)
    full = "free some space and run the command again" if error.errno in FULL else None
    return GenmillError(
        str(error.strerror or error), remedy=full or _REMEDIES.get(error.errno or 0)
    )


def is_missing(path: Path) -> bool:
    """Whether nothing is there, not even a link, but could be; False where that cannot be seen."""
    try:
        path.lstat()
    except FileNotFoundError:
        return not any(_fault(part, inner=True) for part in path.parents)
    except OSError:
        return False
    return False


def named_path(error: OSError, default: os.PathLike[str]) -> Path:
    """The path that an error names (of a rename, the new one), or else the `default`."""
    return Path(_name(error) or default)


def target_at_fault(error: OSError, folder: Path) -> Path:
    """What keeps `folder` from being written to: a file in it that is there, else the folder."""
    named = named_path(error, folder)
    return named if os.path.lexists(named) or not named.is_relative_to(folder) else folder


def _name(error: OSError) -> str | None:
    names = (error.filename,) if error.errno == errno.ENOENT else (error.filename2, error.filename)
    return next((os.fsdecode(name) for name in names if isinstance(name, str | bytes)), None)


def explain(error: OSError, path: Path) -> tuple[str, str]:
    """What is wrong with a path, and what to do about it."""
    remedy = _REMEDIES.get(error.errno or 0, "check the path and its disk")
    for part in (*reversed(path.parents), path):
        if fault := _fault(part, inner=part != path):
            which = "it" if part == path else shown(part)
            return f"{which} is {fault}", _LINK if "link" in fault else remedy
    if error.errno == errno.EEXIST:
        return "it is not a folder", remedy
    return str(error.strerror or error), remedy


def _fault(path: Path, *, inner: bool) -> str | None:
    """What is wrong with a part of a path, if that can be seen; `inner` if more parts follow."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads back to itself"
        if error.errno == errno.ENOENT and path.is_symlink():
            return f"a link to {shown(path.readlink())}, which is not there"
        return None
    return "not a folder" if inner and not stat.S_ISDIR(mode) else None
