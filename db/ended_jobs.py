"""Ended jobs in the order in which they ended, and how far something has come among them."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Select, and_, func, or_, select, update
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


def locked_place(session: Session, what: str) -> Retention | None:
    """The row that keeps how far something has come; None if another transaction holds it."""
    insert_new(session, Retention, [{"what": what, "finished_at": EPOCH, "job_id": ""}])
    statement = select(Retention).where(Retention.what == what)
    return session.scalar(
        statement.with_for_update(skip_locked=True).execution_options(populate_existing=True)
    )


def look_again(session: Session, job_ids: Collection[str]) -> None:
    """Let retention come again to jobs whose artifacts something else has kept until now."""
    ended = select(func.min(Job.finished_at)).where(Job.id.in_(job_ids)).scalar_subquery()
    place = update(Retention).where(Retention.what == "artifacts", Retention.finished_at >= ended)
    session.execute(place.values(finished_at=ended, job_id=""))
