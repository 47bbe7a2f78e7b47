"""Folders for work under way, and the removal of those whose process died.

Each process holds a kernel lock on its folder's lock file, so what is not locked is nobody's.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.files import disk_errors, full_disk


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A new folder under `root`, removed at the end of the block.

    Raises `Unreachable` where the disk is full, or fills up within the block, and where `root` may
    not be written.
    """
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=root, prefix="work-"))
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with full_disk(root):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(root: Path) -> int:
    """Remove what dead processes left under `root`; say how many folders that were."""
    return sum(_remove_if_dead(folder) for folder in root.glob("work-*"))


def _remove_if_dead(folder: Path) -> bool:
    try:
        lock = os.open(folder / ".lock", os.O_RDWR)
    except FileNotFoundError:
        return False  # its owner is just making it, or just removing it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
