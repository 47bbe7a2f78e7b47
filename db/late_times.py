"""Times too far ahead: the database's clock was wrong when they were written, and was set right.

Until then nobody would take the shard back, ring for it or wake it, nor try again what has failed,
nor look for the objects of what was removed.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Table, TextClause, select, text, update
from sqlalchemy.orm import Session

from db.session import clock
from db.tables import SETBACKS, SHARDS, TOMBSTONES, WORKERS
from db.tombstones import SWEEP_AFTER

SLACK = timedelta(hours=1)  # longer than any pause that is written
# literals, so that the partial indexes are used
WAITING = text("status = 'queued' AND waiting")
DISPATCHED = text("status = 'queued' AND dispatched_at IS NOT NULL")
RUNNING = text("status = 'running'")
SWEPT = text("sweep_at IS NOT NULL")
ALL = text("1 = 1")


class _Change(NamedTuple):
    table: Table
    among: TextClause
    late: ColumnElement[bool]
    column: str
    value: datetime | None


def are_late(session: Session, *, lease_s: float) -> bool:
    """Whether there are any. Reads a few index entries."""
    return any(
        session.scalar(select(text("1")).select_from(each.table).where(each.among, each.late))
        for each in _changes(clock(session), lease_s)
    )


def bring_back(session: Session, *, lease_s: float) -> int:
    """Replace them; return how many rows were changed.

    A running shard gets a whole lease from now on, so that a worker that is alive keeps it.
    """
    changed = 0
    for each in _changes(clock(session), lease_s):
        statement = update(each.table).where(each.among, each.late)
        result: Any = session.execute(statement.values({each.column: each.value}))
        changed += result.rowcount
    return changed


def _changes(now: datetime, lease_s: float) -> Iterator[_Change]:
    shard, lease = SHARDS.c, timedelta(seconds=lease_s)
    late, held = now + SLACK, now + max(SLACK, 10 * lease)  # others may have longer leases
    yield _Change(SHARDS, WAITING, shard.not_before > late, "not_before", now)
    yield _Change(SHARDS, DISPATCHED, shard.dispatched_at > late, "dispatched_at", None)
    yield _Change(SHARDS, RUNNING, shard.lease_until > held, "lease_until", now + lease)
    yield _Change(WORKERS, ALL, WORKERS.c.heartbeat_at > late, "heartbeat_at", now)
    yield _Change(SETBACKS, ALL, SETBACKS.c.since > late, "since", now)
    yield _Change(SETBACKS, ALL, SETBACKS.c.again_at > late, "again_at", now)
    sweep_at = now + SWEEP_AFTER
    swept_late = TOMBSTONES.c.sweep_at > sweep_at + SLACK
    yield _Change(TOMBSTONES, SWEPT, swept_late, "sweep_at", sweep_at)
