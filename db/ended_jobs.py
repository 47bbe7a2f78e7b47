"""Ended jobs in the order in which they ended, and how far something has come among them."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session

from db.session import insert_new
from db.tables import Job, Retention

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
    """Let retention come again to jobs whose artifacts something else has kept until now."""
    ended = session.scalar(select(func.min(Job.finished_at)).where(Job.id.in_(job_ids)))
    # a step that is under way may pass these jobs by: what keeps them is not gone before the commit
    place = locked_place(session, "artifacts", wait=True)
    if ended is not None and place is not None and place.finished_at >= ended:
        place.finished_at, place.job_id = ended, ""
        session.flush()
