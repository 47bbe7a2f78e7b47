"""Who may read what Genmill writes: its owner alone, from the first byte, whatever the umask.

The record, the store, logs, sockets and caches hold prompts, weights and passwords. All of them are
made by this process or its children, which have its umask. In a home that a group shares, reading
the settings lets the group in (`db.sharing`). Files that the user asks for by name (downloads,
exports, sheets) are an exception: `shared_as_usual` makes them as other programs would.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

OWNER_ONLY = 0o077

_usual = OWNER_ONLY  # the umask that the command was started with


@contextmanager
def private_files() -> Iterator[None]:
    """Make every new file and folder its owner's alone."""
    global _usual  # noqa: PLW0603 - a process has one umask
    _usual = os.umask(OWNER_ONLY)
    try:
        yield
    finally:
        os.umask(_usual)


@contextmanager
def shared_as_usual() -> Iterator[None]:
    """Make new files as the user's umask says, for a folder that the user named."""
    before = os.umask(_usual)
    try:
        yield
    finally:
        os.umask(before)
