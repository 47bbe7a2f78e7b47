"""A job's journal: its log lines, the points of its curves, its changes of state."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, func, select
from sqlalchemy.orm import Session

from db.columns import new_id
from db.session import clock, insert_new, upsert
from db.states import JobState
from db.tables import Job, LogLine, Point, Shard, Transition


def log(
    session: Session, job_id: str, message: str, level: str = "info", *, line_id: str | None = None
) -> None:
    """Write a line into the job's log; writing a `line_id` again changes nothing."""
    row = {"id": line_id or new_id(), "job_id": job_id, "at": clock(session)}
    insert_new(session, LogLine, [row | {"level": level, "message": message}])


def log_lines(session: Session, job_id: str, *, since: datetime | None = None) -> list[LogLine]:
    """The job's log, or its lines from a time on, oldest first."""
    statement = select(LogLine).where(LogLine.job_id == job_id)
    if since is not None:
        statement = statement.where(LogLine.at >= since)
    # an id begins with its writer's clock, which may be a day off; `at` is the database's
    return list(session.scalars(statement.order_by(LogLine.at, LogLine.id)))


def add_points(session: Session, job_id: str, step: int, values: Mapping[str, float]) -> None:
    """Add a point at `step` to each curve named in `values`, replacing any point there."""
    rows = [
        {"job_id": job_id, "name": name, "step": step, "value": float(value)}
        for name, value in values.items()
    ]
    upsert(session, Point, rows)


def points(session: Session, job_id: str) -> list[Point]:
    """The points of a job's curves, in the order of names and steps."""
    statement = select(Point).where(Point.job_id == job_id).order_by(Point.name, Point.step)
    return list(session.scalars(statement))


def last_points(session: Session, job_id: str) -> dict[str, float]:
    """The last value of each of a job's curves, by its name."""
    newest = (
        select(Point.name, func.max(Point.step).label("step"))
        .where(Point.job_id == job_id)
        .group_by(Point.name)
        .subquery()
    )
    here = and_(Point.name == newest.c.name, Point.step == newest.c.step)
    statement = select(Point.name, Point.value).join(newest, here).where(Point.job_id == job_id)
    return {name: value for name, value in session.execute(statement)}


def drop_points_after(session: Session, job_id: str, step: int) -> None:
    """Delete the points after `step`: a resumed training writes them again."""
    session.execute(delete(Point).where(Point.job_id == job_id, Point.step > step))


def inherit_points(session: Session, job_id: str, *, shard_id: str, step: int) -> None:
    """Copy the points up to `step` of the training of this shard, which the job goes on from."""
    origin = session.scalar(select(Shard.job_id).where(Shard.id == shard_id))
    if origin in {None, job_id}:
        return
    earlier = [point for point in points(session, str(origin)) if point.step <= step]
    rows = [{"name": each.name, "step": each.step, "value": each.value} for each in earlier]
    insert_new(session, Point, [{"job_id": job_id, **row} for row in rows])


def transitions(session: Session, job_id: str, *, with_shards: bool = True) -> list[Transition]:
    """Every change of state of a job, oldest first, with the recorded ones of its shards or not.

    What went as planned is not recorded, but follows from the job's own row (`db.moves`).
    """
    statement = select(Transition).where(Transition.job_id == job_id)
    if not with_shards:
        statement = statement.where(Transition.shard_id.is_(None))
    recorded = list(session.scalars(statement.order_by(Transition.at, Transition.id)))
    moves = [(row.old, row.new) for row in recorded if row.shard_id is None]
    known = {new for _, new in moves}
    times = select(Job.status, Job.created_at, Job.started_at, Job.finished_at)
    told = [
        Transition(job_id=job_id, at=at, old=old, new=new)
        for job in session.execute(times.where(Job.id == job_id))
        for at, old, new in told_by_row(job, finalized=JobState.FINALIZING in known)
        if (old, new) not in moves  # by an earlier Genmill
        and not (old is None and known & {"waiting", "queued"})  # it began otherwise
    ]
    begun = [row for row in told if row.new != JobState.SUCCEEDED]
    ended = [row for row in told if row.new == JobState.SUCCEEDED]
    return sorted([*begun, *recorded, *ended], key=lambda row: row.at)


def told_by_row(job: Any, *, finalized: bool) -> Iterator[tuple[datetime, str | None, str]]:
    """The moves that a job's row tells: time, old state, new state."""
    yield job.created_at, None, "queued"
    if job.started_at is not None:
        yield job.started_at, "queued", "running"
    if job.status == JobState.SUCCEEDED:
        yield job.finished_at, "finalizing" if finalized else "running", "succeeded"
