"""Workers: one row a boot, so that a name used again never hides an orphan."""

from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.session import clock, insert_new
from db.tables import Worker


def start(session: Session, *, boot_id: str, host: str, pid: int, device: str) -> None:
    """Record a boot of a worker; one that is on record already stays as it is."""
    now = clock(session)
    row = {"boot_id": boot_id, "host": host, "pid": pid, "device": device}
    insert_new(session, Worker, [row | {"started_at": now, "heartbeat_at": now}])


def beat(session: Session, boot_id: str) -> None:
    """Note that a worker lives."""
    now = clock(session)
    session.execute(update(Worker).where(Worker.boot_id == boot_id).values(heartbeat_at=now))


def stop(session: Session, boot_id: str) -> None:
    """Note that a worker ended in good order."""
    now = clock(session)
    session.execute(update(Worker).where(Worker.boot_id == boot_id).values(stopped_at=now))


def live(session: Session, within_s: float) -> list[Worker]:
    """Workers that did not stop and were heard of within `within_s`, the longest running first."""
    since = clock(session) - timedelta(seconds=within_s)
    statement = select(Worker).where(Worker.stopped_at.is_(None), Worker.heartbeat_at > since)
    return list(session.scalars(statement.order_by(Worker.started_at, Worker.boot_id)))
