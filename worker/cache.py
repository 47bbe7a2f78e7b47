"""A cache on this machine's disk, within a limit and shared by all of its processes.

An entry is a folder `{kind}/{key}`. Its key follows from its content, so it is never stale. File
locks (`flock`) show what is in use: a shared lock while a folder is read, an exclusive one while it
is downloaded or evicted. A process that dies holds none. Knows no store and no jobs.
"""

import fcntl
import os
import re
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from db.errors import BadRecord, Unreachable
from worker.files import disk_errors, inside

PATIENCE_S = 300.0  # with another process, while a folder that it has locked stays as it is

_LOCK_FLAGS = (
    os.O_RDWR | os.O_CREAT
)  # lock files stay: removing one would let two processes hold it
_RETRY_S = 0.02
_LOOK_EVERY = 50  # pauses of so long
# what has neither a lock nor such a name is not the cache's: its folder may be somebody else's
_DIGEST = re.compile(r"[0-9a-f]{64}")


class HeldFolder:
    """A folder of the cache that stays on disk, complete, as long as this object lives."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        weakref.finalize(self, os.close, lock)  # closing the descriptor releases the lock


class Cleared(NamedTuple):
    """How many folders were removed, the bytes that freed, and how many are in use."""

    folders: int
    size_bytes: int
    held: int


class Cache:
    """Folders below `root`. Beyond `limit_bytes` in all, the least recently used are evicted.

    What is held is never evicted, so folders in use can exceed the limit.
    """

    def __init__(self, root: Path, *, limit_bytes: int) -> None:
        self.root = root
        self.limit_bytes = limit_bytes

    def hold(
        self,
        kind: str,
        key: str,
        download: Callable[[Path], None],
        *,
        is_complete: Callable[[Path], bool] = Path.is_dir,
    ) -> HeldFolder:
        """The folder `kind/key`, filled by `download` unless it exists and `is_complete`.

        `download` gets a folder that may hold what an earlier attempt left, and adds the rest. Its
        errors pass, and what it wrote is kept for the next attempt. One process downloads while the
        others wait. Raises `Unreachable` if the disk is full or not writable, or another process
        gets no further with the folder, `BadInput` for a key that is no plain name, and `BadRecord`
        if the folder is not complete after its download.
        """
        folder = inside(self.root / kind, key)
        with disk_errors(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = _open_lock(folder)
            try:
                _ensure_complete(folder, lock, download, is_complete)
                os.utime(folder)  # the order of eviction
                self._evict()
            except BaseException:
                os.close(lock)
                raise
            return HeldFolder(folder, lock)

    def clear(self) -> "Cleared":
        """Remove every folder that nobody holds. Raises `Unreachable` for errors of the disk."""
        with disk_errors(self.root):
            sizes = self.sizes()
            held = [folder for folder in sizes if not _try_evict(folder)]
        left = _unique({folder: sizes[folder] for folder in held})
        freed = {inode: size for inode, size in _unique(sizes).items() if inode not in left}
        return Cleared(len(sizes) - len(held), sum(freed.values()), len(held))

    def sizes(self) -> dict[Path, dict[int, int]]:
        """The folders that are not empty, each with the bytes of its files by inode."""
        folders = {
            path.with_suffix("")  # `KEY`, `KEY.part` and `KEY.lock` are one entry
            for kind in (self.root.iterdir() if self.root.is_dir() else ())
            if kind.is_dir() and not kind.is_symlink()
            for path in kind.iterdir()
            if path.with_suffix(".lock").exists() or _DIGEST.fullmatch(path.name)
        }
        return {folder: files for folder in folders if (files := _file_sizes(folder))}

    def _evict(self) -> None:
        """Evict folders that nobody holds, the least recently used first, until the rest fit."""
        sizes = self.sizes()
        for folder in sorted(sizes, key=_last_used):
            if sum(_unique(sizes).values()) <= self.limit_bytes:
                return
            if _try_evict(folder):
                del sizes[folder]


def _unique(sizes: Mapping[Path, Mapping[int, int]]) -> dict[int, int]:
    """Bytes by inode: a file that is linked into several folders counts once."""
    return {inode: size for files in sizes.values() for inode, size in files.items()}


def _open_lock(folder: Path) -> int:
    return os.open(folder.with_suffix(".lock"), _LOCK_FLAGS, 0o660)  # less the umask


def _ensure_complete(
    folder: Path, lock: int, download: Callable[[Path], None], is_complete: Callable[[Path], bool]
) -> None:
    """On return, `lock` is held shared and `folder` is complete."""
    pauses = _pauses(folder)
    while not (_try_lock(lock, fcntl.LOCK_SH) and is_complete(folder)):
        # not held shared meanwhile: then nobody could download
        if not _try_lock(lock, fcntl.LOCK_EX):
            next(pauses)  # another process downloads, evicts, or still reads what was complete
        elif not is_complete(folder):
            part = _set_aside(folder)
            part.mkdir(exist_ok=True)
            download(part)
            if not is_complete(part):  # nor would it be after another download
                raise BadRecord(
                    f"{folder.name} is not as the record says, though each file has its digest",
                    remedy="it was changed by hand, or by someone else: restore a backup",
                )
            part.rename(folder)


def _try_lock(lock: int, kind: int) -> bool:
    """Change what a lock is held for; if others are in the way, it is not held at all."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(lock, fcntl.LOCK_UN)
        return False
    return True


def _pauses(folder: Path) -> Iterator[None]:
    """Short pauses, as long as somebody gets on with a folder. Raises `Unreachable` after that.

    A process that is frozen keeps its locks.
    """
    before, until = None, 0.0
    while True:
        sizes = _file_sizes(folder)
        if sizes != before:
            before, until = sizes, time.monotonic() + PATIENCE_S
        elif time.monotonic() > until:
            raise Unreachable(
                f"another process has {folder} locked and gets no further with it",
                remedy=f"see `fuser -v {folder.with_suffix('.lock')}`, and end it if it is frozen",
            )
        for _ in range(_LOOK_EVERY):
            time.sleep(_RETRY_S)
            yield


def _set_aside(folder: Path) -> Path:
    """Rename `folder`, if there is one, to the name of its partial download."""
    part = folder.with_suffix(".part")
    if folder.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        folder.rename(part)
    else:
        folder.unlink(missing_ok=True)  # a file, which an earlier version could leave here
    return part


def _try_evict(folder: Path) -> bool:
    """Remove a folder and its partial download; False if somebody holds the lock."""
    lock = _open_lock(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # renamed first, so that an eviction cut short never leaves a folder with files missing
        shutil.rmtree(_set_aside(folder), ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _file_sizes(folder: Path) -> dict[int, int]:
    """Bytes by inode of a folder and its partial download, which others may be removing."""
    sizes = {}
    for root in (folder, folder.with_suffix(".part")):
        for parent, _, names in os.walk(root):
            for name in names:
                with suppress(FileNotFoundError):
                    found = Path(parent, name).stat()
                    sizes[found.st_ino] = found.st_size
    return sizes


def _last_used(folder: Path) -> float:
    for path in (folder, folder.with_suffix(".part")):
        with suppress(FileNotFoundError):
            return path.stat().st_mtime
    return 0
