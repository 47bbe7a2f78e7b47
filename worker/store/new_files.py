"""Small new files, written whole or not at all, with few system calls and no `Path` on the way."""

import ctypes
import os
from itertools import count

_numbers = count()
# flushes one file system; Linux has it, Python does not
_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


def write_new(
    data: bytes, target: str, temporaries: str, *, durable: bool, mode: int | None = None
) -> None:
    """Write `target` by way of a file in the folder `temporaries`, making its folder if needed.

    It gets the `mode`, or else what the umask leaves. Unless it is `durable`, it may be lost in a
    power failure until `flush_file_system`. Raises `FileNotFoundError` if there is no folder
    `temporaries`.
    """
    durable = durable or _syncfs is None
    temporary = f"{temporaries}/{os.getpid()}-{next(_numbers)}-{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        file = os.open(temporary, flags, 0o660)  # less the umask
        try:
            if mode is not None:
                os.fchmod(file, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        folder = target.rpartition("/")[0]
        try:
            os.rename(temporary, target)  # noqa: PTH104 - no Path, see above
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - as above
            os.rename(temporary, target)  # noqa: PTH104 - as above
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)  # noqa: PTH108 - as above
        raise
    if durable:
        _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def flush_file_system(folder: os.PathLike[str]) -> None:
    """Flush everything that was written to the file system of `folder`; see syncfs(2)."""
    if _syncfs is None:
        return  # `write_new` has flushed each file
    file = os.open(folder, os.O_RDONLY)
    try:
        if _syncfs(file) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(folder))
    finally:
        os.close(file)
