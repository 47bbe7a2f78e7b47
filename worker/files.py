"""Local files: written whole or not at all, read as TOML, their digests, and errors of the disk.

What the record or a store names becomes a path in one place, `inside`. Who may read a new file is
for the umask to say, which the command line sets (`scheduler.cli.private`).
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from db.errors import BadInput, GenmillError, Unreachable
from db.path_errors import DISK, path_error, read_whole, target_at_fault

CHUNK = 1 << 20  # bytes read or written at once

_NOT_WRITABLE = (
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
    | {errno.ENAMETOOLONG, errno.ELOOP}
)  # fmt: skip


_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def is_plain(name: object) -> bool:
    """Whether `name` can only be the name of a file: not a path, hidden, or read as an option."""
    return isinstance(name, str) and _PLAIN.fullmatch(name) is not None


def require_plain(name: str) -> str:
    """`name`, of the record or a store. Raises `BadInput` for what is no plain name."""
    if not is_plain(name):
        raise BadInput(
            f"{str(name)[:120]!r}, which the record or the store gives as a name, is no plain name",
            remedy="it was changed by hand, or by someone else: restore it from a backup",
        )
    return name


def inside(folder: Path, name: str) -> Path:
    """The file or folder `name` in `folder`; every name from the record or a store goes this way.

    Raises `BadInput` for what is no plain name, or is a link there, which could lead elsewhere.
    """
    path = folder / require_plain(name)
    if path.is_symlink():
        raise BadInput(f"{path} is a link, which could lead elsewhere", remedy="remove it")
    return path


def read_toml(path: Path, noun: str, *, limit_bytes: int) -> dict[str, Any]:
    """The data of a user's TOML file. Raises `BadInput`, with the line, calling it the `noun`."""
    content = read_whole(path, f"a {noun}", limit_bytes=limit_bytes, piped=True)
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        raise BadInput(f"the {noun} {path} is not TOML: {error}") from None


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(data: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """`data` as JSON that is equal for equal data: sorted keys, no spaces, UTF-8 not escaped."""
    return _CANONICAL.encode(data).encode()


def weights_digest(digests: Mapping[str, str]) -> str:
    """The SHA-256 that names a version's weights, from the digests of its safetensors files.

    One file: its own digest. Several: the digest of the lines `name digest`, sorted.
    """
    lines = [f"{name} {sha256}" for name, sha256 in sorted(digests.items())]
    if len(lines) == 1:
        return lines[0].rpartition(" ")[2]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    A block that fails leaves nothing behind. Raises `Unreachable` if the disk is full or the
    folder is not writable.
    """
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".new-{secrets.token_hex(8)}")
        try:
            with temporary.open("xb") as file:
                yield file
            durable_rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def durable_rename(temporary: Path, path: Path) -> None:
    """Rename a finished file so that it survives a crash: fsync, rename, fsync of the folder."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Raise `Unreachable` in place of the errors of a full or failing disk; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise _target_error(error, folder) from error


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raise `Unreachable` for a full or failing disk, and for a folder that is not writable.

    Another file or folder that cannot be used is named as such. Other errors pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK | _NOT_WRITABLE:
            raise
        raise _target_error(error, folder) from error


def _target_error(error: OSError, folder: Path) -> GenmillError:
    """The error of a block that writes into `folder`; what is at fault may lie elsewhere."""
    at_fault = target_at_fault(error, folder)
    verb = "written to" if at_fault.is_relative_to(folder) else "used"
    return path_error(error, at_fault, verb=verb, kind=Unreachable)


@contextmanager
def partial_download(path: Path) -> Iterator[BinaryIO]:
    """Open the partial download of `path`, locked and positioned at its end.

    The caller renames it once it is complete, or leaves it to be resumed. A second process that
    downloads the same `path` meanwhile gets a file of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    file = open_no_link(part, "a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_ino != part.stat().st_ino:
            raise FileNotFoundError  # renamed by its owner between our open and our lock
    except (BlockingIOError, FileNotFoundError):
        file.close()
        file = open_no_link(part.with_name(f".{path.name}.{os.getpid()}.part"), "w+b")
    with file:
        yield file


def open_no_link(path: Path, mode: str) -> BinaryIO:
    """Open a file for writing; an `OSError` if a link lies there, which could lead anywhere."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666)

    return cast(BinaryIO, open(path, mode, opener=opener))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
