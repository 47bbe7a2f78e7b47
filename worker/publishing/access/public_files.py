"""Files in a folder that others serve or read: whole or not at all, and readable by everybody.

Others may have put anything else in a file's place. It is never opened, and no link below the
folder is followed. A new file replaces it, unless it is a folder that is not empty.
"""

import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from db.errors import NotFound
from db.path_errors import path_error
from worker.files import disk_errors, durable_rename, is_plain, require_plain
from worker.publishing.base import NoFile, Obstructed, TargetAway

FILE_MODE, FOLDER_MODE = 0o644, 0o755  # whatever the umask of the worker, which is private
UNFINISHED = ".tmp"  # a folder of the worker's alone, as that of `worker.store.folder`
ABANDONED_S = 600  # without a write: no worker is at it any more
TRIES = 5  # of a write whose folder another worker removes meanwhile, since it is empty

_NOT_REGULAR = {errno.ELOOP, errno.ENXIO}  # of `open`: a link, a socket
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def require_folder(root: Path) -> None:
    """Raise `TargetAway` if a folder is missing, as one is that is not mounted."""
    try:
        if root.is_dir():
            return
        is_other = root.exists()
    except OSError as error:  # as of a name that is too long
        raise path_error(error, root, verb="used", kind=TargetAway) from error
    if is_other:
        raise TargetAway(f"{root} is not a folder", remedy="remove it, or use another path")
    raise TargetAway(f"folder {root} is not there", remedy="create it, or mount it")


def path_of(root: Path, key: str) -> Path:
    """The file of a key, whose parts are plain names, below a folder. Raises `BadInput`."""
    return root.joinpath(*(require_plain(part) for part in key.split("/")))


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
    clear(root, path)
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


def clear(root: Path, path: Path) -> None:
    """Remove an empty folder in a file's place. Raises `Obstructed` where no file can be written.

    Anything else there is replaced by the file that is renamed to its name.
    """
    for folder in (root / UNFINISHED, *_folders(root, path)):
        if mode := _mode(folder):
            _require_kind(folder, mode, stat.S_ISDIR(mode), "a folder", Obstructed)
    if stat.S_ISDIR(_mode(path)):
        try:
            path.rmdir()
        except OSError as error:
            raise Obstructed(
                f"{path} is a folder, not a file, and cannot be removed: {error.strerror}",
                remedy="move it away, and publish again",
            ) from error


def read(root: Path, key: str) -> bytes:
    """The bytes of a file. Raises `NotFound` and `Unreachable`."""
    require_folder(root)
    try:
        with disk_errors(root), open_file(root, path_of(root, key)) as file:
            return file.read()
    except FileNotFoundError:
        raise NotFound(f"no file {key!r} in {root}") from None


def open_file(root: Path, path: Path) -> BinaryIO:
    """Open a file below a folder. Raises `NoFile` where something else lies, and `OSError`."""
    for folder in _folders(root, path):
        if mode := _mode(folder):
            _require_kind(folder, mode, stat.S_ISDIR(mode), "a folder", NoFile)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        handle = os.open(path, flags)  # waits for nobody who would write into a pipe
    except OSError as error:
        if error.errno in _NOT_REGULAR:
            _require_kind(path, _mode(path), False, "a file", NoFile)
        raise
    try:
        mode = os.fstat(handle).st_mode
        _require_kind(path, mode, stat.S_ISREG(mode), "a file", NoFile)
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def is_file(root: Path, path: Path) -> bool:
    """Whether a file lies there, and nothing else."""
    with suppress(FileNotFoundError, NoFile):
        open_file(root, path).close()
        return True
    return False


def _folders(root: Path, path: Path) -> list[Path]:
    """The folders between a folder and a file below it, from the top."""
    return [each for each in reversed(path.parents) if each != root and each.is_relative_to(root)]


def _mode(path: Path) -> int:
    """What lies there, with its permissions; 0: nothing."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.lstat().st_mode
    return 0


def _require_kind(
    path: Path, mode: int, is_right: bool, wanted: str, error: type[NoFile | Obstructed]
) -> None:
    if not is_right:
        kind = _KINDS.get(stat.S_IFMT(mode), "a file")
        raise error(f"{path} is {kind}, not {wanted}", remedy="remove it, and publish again")


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
        delete(root, path)
        for each in _unfinished(root, f"{_mark(key)}-*"):
            each.unlink(missing_ok=True)
        if not _is_elsewhere(root, path):
            _remove_empty(_folders(root, path))


def delete(root: Path, path: Path) -> None:
    """Remove a file, or what lies in its place unless that is a folder that is not empty."""
    if _is_elsewhere(root, path):
        return
    if stat.S_ISDIR(_mode(path)):
        _remove_empty([path])
    else:
        path.unlink(missing_ok=True)


def _is_elsewhere(root: Path, path: Path) -> bool:
    """Whether a folder above a file is a link, or none."""
    modes = map(_mode, _folders(root, path))
    return any(mode and not stat.S_ISDIR(mode) for mode in modes)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, each inside of the one before it, as far as they are empty."""
    with suppress(OSError):  # not empty, or in use again
        for folder in reversed(folders):
            folder.rmdir()


def sweep(root: Path) -> None:
    """Remove what killed workers left of any file."""
    with disk_errors(root):
        for each in _unfinished(root, "*"):
            with suppress(FileNotFoundError):
                if time.time() - each.lstat().st_mtime > ABANDONED_S:
                    each.unlink()


def _unfinished(root: Path, pattern: str) -> list[Path]:
    """Unfinished files; none below a link, which could lead elsewhere."""
    folder = root / UNFINISHED
    return list(folder.glob(pattern)) if stat.S_ISDIR(_mode(folder)) else []


def _mark(key: str) -> str:
    """By which unfinished files of a key are known."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _make_folders(root: Path, folder: Path) -> None:
    for each in _folders(root, folder / "file"):
        if not each.exists():
            each.mkdir(exist_ok=True)
            each.chmod(FOLDER_MODE)
