"""Who runs this process, for the record: who enqueued a job, moved an alias, withdrew an item."""

import getpass
import os
import socket


def who() -> str:
    """The user and the host of this process, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:200]
