"""Ended jobs in the order in which they ended, and how far something has come among them."""

import hashlib
from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Select, and_, delete, or_, select
from sqlalchemy.orm import Session

from db.session import insert_new
from db.tables import Job, Retention

ARTIFACTS = "artifacts"
AGAIN = "again "  # what notes of single jobs begin with, beside how far something has come
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def ended_jobs(place: Retention | None, before: datetime) -> Select[str, datetime | None]:
    """Jobs that finished after `place` and before a time, in that order."""
    statement = select(Job.id, Job.finished_at).where(Job.finished_at < before)
    if place is not None:
        beyond = and_(Job.finished_at == place.finished_at, Job.id > place.job_id)
        # the first condition lets the database use the index
        statement = statement.where(
            Job.finished_at >= place.finished_at, or_(Job.finished_at > place.finished_at, beyond)
        )
    return statement.order_by(Job.finished_at, Job.id)


def locked_place(session: Session, what: str, *, wait: bool = False) -> Retention | None:
    """The row that keeps how far something has come.

    None if another transaction holds it, unless it shall `wait` for that to end.
    """
    insert_new(session, Retention, [{"what": what, "finished_at": EPOCH, "job_id": ""}])
    statement = select(Retention).where(Retention.what == what)
    return session.scalar(
        statement.with_for_update(skip_locked=not wait).execution_options(populate_existing=True)
    )


def look_again(session: Session, job_ids: Collection[str]) -> None:
    """Let retention come again to jobs whose artifacts something else has kept until now.

    Only those that it has passed are noted, each in a row of its own: it does not walk from there.
    """
    # a step that is under way may pass these jobs by: what keeps them is not gone before the commit
    place = locked_place(session, ARTIFACTS, wait=True)
    if place is None:
        return
    level = and_(Job.finished_at == place.finished_at, Job.id <= place.job_id)
    behind = or_(Job.finished_at < place.finished_at, level)
    passed = session.execute(select(Job.id, Job.finished_at).where(Job.id.in_(job_ids), behind))
    rows = [
        {"what": _again(row.id), "finished_at": row.finished_at, "job_id": row.id} for row in passed
    ]
    insert_new(session, Retention, rows)


def jobs_again(before: datetime) -> Select[str, datetime]:
    """Jobs to look at again that finished before a time, in that order."""
    noted = Retention.what.startswith(AGAIN), Retention.finished_at < before
    statement = select(Retention.job_id.label("id"), Retention.finished_at).where(*noted)
    return statement.order_by(Retention.finished_at, Retention.job_id)


def looked_again(session: Session, job_ids: Collection[str]) -> None:
    """These jobs need no other look, unless something comes to ask for it."""
    keys = [_again(each) for each in job_ids]
    session.execute(delete(Retention).where(Retention.what.in_(keys)))


def _again(job_id: str) -> str:
    """The key of a job's note, which has room for less than an id."""
    return AGAIN + hashlib.sha256(job_id.encode()).hexdigest()[:14]
