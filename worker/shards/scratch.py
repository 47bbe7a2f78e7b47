"""Folders for work in progress, and the removal of those whose process died.

Each process holds a kernel lock on its folder's lock file, so a folder that is not locked has no
owner. Making a folder and sweeping exclude each other by a lock on `root/.lock`: otherwise a sweep
could find a new folder before its owner has locked it.
"""

import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from worker.files import disk_errors, full_disk

log = logging.getLogger(__name__)


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A new folder under `root`, removed at the end of the block.

    Raises `Unreachable` if `root` is not writable, or the disk is full or fills up within the
    block.
    """
    with ExitStack() as stack:
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            with _locked(root):
                folder = root / f"work-{secrets.token_hex(8)}"
                folder.mkdir(0o770)  # less the umask
                stack.enter_context(_locked(folder))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with full_disk(root):
            yield folder


def sweep(root: Path) -> int:
    """Remove what dead processes left under `root`; return the number of folders removed.

    What cannot be removed is logged and left.
    """
    try:
        with _locked(root):
            return sum(_remove_if_dead(folder) for folder in root.glob("work-*"))
    except FileNotFoundError:  # no work has been done here yet
        return 0
    except OSError as error:
        log.warning("cannot be swept: %s: %s", root, error.strerror)
        return 0


def _remove_if_dead(folder: Path) -> bool:
    try:
        with _locked(folder, fcntl.LOCK_NB):
            shutil.rmtree(folder)
    except (FileNotFoundError, BlockingIOError):  # its owner is removing it, or works in it
        return False
    except OSError as error:
        log.warning("left over and cannot be removed: %s: %s", folder, error.strerror)
        return False
    return True


@contextmanager
def _locked(folder: Path, flags: int = 0) -> Iterator[None]:
    """Hold the lock of a folder, a file `.lock` in it, which is made if missing."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o660)  # less the umask
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(lock)
