"""Workers: one row for each boot, so that a restarted worker never hides what the last one held."""

from datetime import datetime, timedelta

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from db.session import Now, clock, insert_new
from db.tables import WORKERS, Worker

LIVE_S = 60  # a worker with a heartbeat within this time counts as live
BEATS_A_SECOND = 100.0  # of all workers together


def start(session: Session, *, boot_id: str, host: str, pid: int, device: str) -> None:
    """Record a worker's boot; recording it again changes nothing."""
    now = clock(session)
    row = {"boot_id": boot_id, "host": host, "pid": pid, "device": device}
    insert_new(session, Worker, [row | {"started_at": now, "heartbeat_at": now}])


def beat(session: Session, boot_id: str) -> int:
    """Record a worker's heartbeat; return how many workers are live."""
    now = session.scalar(_BEAT, {"boot": boot_id})
    return count_live(session, now=now)


def beat_pause_s(shortest_s: float, *, live: int, lease_s: float) -> float:
    """How long a worker waits between two heartbeats, the longer the more workers there are.

    Together they write about `BEATS_A_SECOND` times a second, each at least once in a quarter of
    the lease.
    """
    return min(max(shortest_s, live / BEATS_A_SECOND), lease_s / 4)


def stop(session: Session, boot_id: str) -> None:
    """Record that a worker has stopped."""
    now = clock(session)
    session.execute(update(Worker).where(Worker.boot_id == boot_id).values(stopped_at=now))


def count_live(session: Session, *, now: datetime | None = None) -> int:
    """How many workers `live` would return; `now` is the database's time, if it is known."""
    since = (now or clock(session)) - timedelta(seconds=LIVE_S)
    return session.scalar(_COUNT_LIVE, {"since": since}) or 0


def live(session: Session, within_s: float = LIVE_S) -> list[Worker]:
    """Workers that have not stopped, with a heartbeat within `within_s`, oldest boot first."""
    since = clock(session) - timedelta(seconds=within_s)
    statement = select(Worker).where(Worker.stopped_at.is_(None), Worker.heartbeat_at > since)
    return list(session.scalars(statement.order_by(Worker.started_at, Worker.boot_id)))


# made once, because they run often
_BEAT = (
    update(WORKERS)
    .where(WORKERS.c.boot_id == bindparam("boot"))
    .values(heartbeat_at=Now())
    .returning(WORKERS.c.heartbeat_at)
)
_COUNT_LIVE = select(func.count()).where(
    WORKERS.c.stopped_at.is_(None), WORKERS.c.heartbeat_at > bindparam("since")
)
