"""How much of the processors a database server and its clients use: what bounds a fleet."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from db.session import Database


@contextmanager
def busy_processors(database: Database, workers: Sequence[int]) -> Iterator[None]:
    """Print to stderr how many processors the server and the workers' processes kept busy."""
    sides = {"server": server_pids(database), "workers": workers}
    before, began = {side: seconds_of(pids) for side, pids in sides.items()}, time.monotonic()
    yield
    elapsed_s = time.monotonic() - began
    busy = {side: (seconds_of(pids) - before[side]) / elapsed_s for side, pids in sides.items()}
    words = ", ".join(f"{side} {count:.2f}" for side, count in busy.items())
    print(f"busy processors over {elapsed_s:.0f} s: {words}", file=sys.stderr)


def server_pids(database: Database) -> list[int]:
    """The first process of a PostgreSQL server, which starts the others."""
    if database.dialect == "sqlite":
        return []
    with database.read() as session:
        backend = session.scalar(text("SELECT pg_backend_pid()"))
    return [_parent(Path(f"/proc/{backend}"))]


def seconds_of(pids: Sequence[int]) -> float:
    """The processor time of processes and their children, of those that have ended too."""
    running = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    children = [path for path in running if _parent(path) in pids]
    ended = sum(_seconds(Path(f"/proc/{pid}"), slice(11, 15)) for pid in pids)
    return ended + sum(_seconds(path, slice(11, 13)) for path in children)


def _parent(process: Path) -> int:
    return int((_fields(process) or ["", "0"])[1])


def _seconds(process: Path, fields: slice) -> float:
    return sum(map(int, _fields(process)[fields])) / os.sysconf("SC_CLK_TCK")


def _fields(process: Path) -> list[str]:
    """The fields of `/proc/PID/stat` (proc(5)) from the state on; none if it has ended."""
    try:
        return (process / "stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return []
