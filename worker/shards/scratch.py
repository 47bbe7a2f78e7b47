"""Folders for work under way, and the removal of those whose process died.

Each process holds a kernel lock on its folder's lock file, so what is not locked is nobody's.
"""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.files import disk_errors, full_disk

log = logging.getLogger(__name__)


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
    """Remove what dead processes left under `root`, and return how many folders that were.

    What cannot be removed is logged and left.
    """
    return sum(_remove_if_dead(folder) for folder in root.glob("work-*"))


def _remove_if_dead(folder: Path) -> bool:
    try:
        lock = os.open(folder / ".lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(lock)
    except (FileNotFoundError, BlockingIOError):  # its owner makes or removes it, or works in it
        return False
    except OSError as error:
        log.warning("left over and cannot be removed: %s: %s", folder, error.strerror)
        return False
    return True
