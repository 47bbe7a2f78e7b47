"""Files in a folder that others serve or read: whole or not at all, and readable by everybody."""

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from db.errors import NotFound
from worker.files import disk_errors, durable_rename, inside, is_plain
from worker.publishing.base import TargetAway

FILE_MODE, FOLDER_MODE = 0o644, 0o755  # whatever the umask of the worker, which is private
UNFINISHED = ".tmp"  # a folder of the worker's alone, as that of `worker.store.folder`
ABANDONED_S = 600  # without a write: no worker is at it any more
TRIES = 5  # of a write whose folder another worker removes meanwhile, since it is empty


def require_folder(root: Path) -> None:
    """Raise `TargetAway` if a folder is missing, as one is that is not mounted."""
    if root.is_file():
        raise TargetAway(f"{root} is a file, not a folder", remedy="remove it, or use another path")
    if not root.is_dir():
        raise TargetAway(f"folder {root} is not there", remedy="create it, or mount it")


def path_of(root: Path, key: str) -> Path:
    """The file of a key, whose parts are plain names, below a folder. Raises `BadInput`."""
    path = root
    for part in key.split("/"):
        path = inside(path, part)
    return path


def write(root: Path, key: str, data: bytes) -> None:
    """Write a file, and the folders above it. Raises `Unreachable`."""
    path = path_of(root, key)
    for _ in range(TRIES):
        require_folder(root)
        with suppress(FileNotFoundError), disk_errors(root):
            _write(root, path, data, mark=_mark(key))
            return
    raise TargetAway(f"{path.parent} is removed again and again while {path.name} is written there")


def _write(root: Path, path: Path, data: bytes, *, mark: str) -> None:
    _make_folders(root, path.parent)
    (root / UNFINISHED).mkdir(mode=0o700, exist_ok=True)
    temporary = root / UNFINISHED / f"{mark}-{secrets.token_hex(8)}"
    try:
        temporary.write_bytes(data)
        temporary.chmod(FILE_MODE)
        durable_rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(root: Path, key: str) -> bytes:
    """The bytes of a file. Raises `NotFound` and `Unreachable`."""
    require_folder(root)
    try:
        with disk_errors(root):
            return path_of(root, key).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no file {key!r} in {root}") from None


def versions(root: Path) -> Iterator[tuple[str, str]]:
    """The files below a folder, each with what tells it from one that is written later.

    Links are left out, and names that are in no key.
    """
    require_folder(root)
    with disk_errors(root):
        for folder, folders, files in os.walk(root, onerror=_raise_unless_gone):
            folders[:] = filter(is_plain, folders)
            inner = Path(folder).relative_to(root).as_posix()
            for name in filter(is_plain, files):
                with suppress(FileNotFoundError):  # removed meanwhile
                    found = os.lstat(f"{folder}/{name}")
                    if stat.S_ISREG(found.st_mode):
                        key = name if inner == "." else f"{inner}/{name}"
                        yield key, f"{found.st_mtime_ns}-{found.st_ino}-{found.st_size}"


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def remove(root: Path, key: str) -> None:
    """Remove a file if it is there, what killed workers left of it, and folders left empty."""
    require_folder(root)
    path = path_of(root, key)
    with disk_errors(root):
        path.unlink(missing_ok=True)
        for each in (root / UNFINISHED).glob(f"{_mark(key)}-*"):
            each.unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or in use again
        for folder in path.parents:
            if folder == root:
                break
            folder.rmdir()


def sweep(root: Path) -> None:
    """Remove what killed workers left of any file."""
    with disk_errors(root):
        for each in (root / UNFINISHED).glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - each.stat().st_mtime > ABANDONED_S:
                    each.unlink()


def _mark(key: str) -> str:
    """By which unfinished files of a key are known."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _make_folders(root: Path, folder: Path) -> None:
    for each in reversed([folder, *folder.parents]):
        if each != root and each.is_relative_to(root) and not each.exists():
            each.mkdir(exist_ok=True)
            each.chmod(FOLDER_MODE)
