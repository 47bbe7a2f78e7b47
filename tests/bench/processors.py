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
    """A PostgreSQL server's processes that are connected now."""
    if database.dialect == "sqlite":
        return []
    with database.read() as session:
        return list(session.scalars(text("SELECT pid FROM pg_stat_activity")))


def seconds_of(pids: Sequence[int]) -> float:
    """The processor time of processes; those that have ended count nothing."""
    return sum(map(_seconds, pids))


def _seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
