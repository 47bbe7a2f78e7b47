"""Folders that one download at a time writes into, whether in this process or another."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

log = logging.getLogger(__name__)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and wait until no other download writes into it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another download into %s is under way: waiting for it", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            log.debug("%s cannot be locked", folder)
        yield
    finally:
        os.close(handle)


class FolderLocks:
    """The folders of one download: first the one that holds all others, then some of those.

    A download that begins with an inner folder waits for this one, or this one for it, but never
    both: it holds nothing outside its own.
    """

    def __init__(self) -> None:
        self._held: dict[Path, ExitStack] = {}

    def take(self, folder: Path) -> None:
        """Hold a folder until it is left, as in `alone_in`; does nothing if it is held."""
        if folder not in self._held:
            stack = ExitStack()
            stack.enter_context(alone_in(folder))
            self._held[folder] = stack

    def leave(self, folder: Path) -> None:
        """Let others write into a folder."""
        self._held.pop(folder).close()

    def __enter__(self) -> "FolderLocks":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for folder in [*self._held]:
            self.leave(folder)
