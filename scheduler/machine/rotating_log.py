"""A log file that is renamed to `NAME.1` once it is large, even while a process writes to it.

Run as a program, `rotating_log.py PATH` copies its standard input to the log until the input ends.
A process that writes into such a pipe loses no line when the log rotates, when it crashes, or when
its supervisor is killed. Uses only the standard library, so that it starts quickly.
"""

import contextlib
import os
import sys
from io import FileIO
from pathlib import Path

LIMIT_BYTES = 10 * 2**20
GROUP_SHARED = 0o2070  # as in `db.sharing`


def open_log(path: Path, *, limit_bytes: int = LIMIT_BYTES) -> FileIO:
    """Open a log for appending, for its owner alone or the group that shares its folder.

    A large one is renamed first.
    An `OSError` if a link lies there, which could lead anywhere.
    """
    if path.exists() and path.stat().st_size > limit_bytes:
        path.replace(path.with_name(f"{path.name}.1"))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    is_shared = path.parent.stat().st_mode & GROUP_SHARED == GROUP_SHARED
    return FileIO(os.open(path, flags, 0o660 if is_shared else 0o600), "ab")


def copy_to_log(source: int, path: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
    """Copy file descriptor `source` to the log at `path` until it ends.

    The log rotates after a line, or within a line that exceeds the limit by itself.
    """
    log = open_log(path, limit_bytes=limit_bytes)
    while chunk := os.read(source, 65536):
        # on a full disk lines are lost, but their writer must not block
        with contextlib.suppress(OSError):
            log.write(chunk)
            size = log.tell()
            if size > limit_bytes and (chunk.endswith(b"\n") or size > 2 * limit_bytes):
                fresh = open_log(path, limit_bytes=limit_bytes)
                log.close()
                log = fresh
    log.close()


if __name__ == "__main__":
    copy_to_log(sys.stdin.fileno(), Path(sys.argv[1]))
