"""Batches: jobs that are submitted together and become visible together.

Their rows are inserted over many short transactions. Until the last of them is in, the batch is
incomplete: readers leave out its jobs, and nobody runs them. One column of one row, `complete_at`,
makes them all visible. What a killed command leaves behind is deleted in small steps.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Delete, ScalarSelect, Select, delete, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, undefer

from db.columns import new_id
from db.errors import GenmillError
from db.lookup import by_prefix
from db.session import clock
from db.tables import Batch, Job, Shard, Transition
from db.tombstones import not_hidden

DELETED_AT_ONCE = 1000  # jobs
SHARDS_AT_ONCE = 5000


def add(session: Session, size: int, batch_id: str | None = None) -> Batch:
    """Insert an incomplete batch for `size` jobs."""
    batch = Batch(id=batch_id or new_id(), size=size, created_at=clock(session))
    session.add(batch)
    session.flush()
    return batch


def complete(session: Session, batch_id: str) -> Batch:
    """Make the jobs of a batch visible; a complete one stays as it is.

    All of its jobs must be stored. Raises `GenmillError` if some have been deleted since.
    """
    batch = _locked(session, batch_id)
    if batch is None or batch.discarded_at is not None:
        raise GenmillError(
            f"batch {batch_id} was not completed in time, and is being deleted",
            remedy="submit it again",
        )
    if batch.complete_at is None:
        batch.complete_at = clock(session)
        session.flush()
    return batch


def get(session: Session, id_or_prefix: str) -> Batch:
    """The complete batch with this id or unambiguous prefix. Raises `NotFound` or `Refused`."""
    whole = Batch.complete_at.is_not(None)
    return by_prefix(session, Batch, id_or_prefix, noun="batch", visible=whole)


def newest(session: Session, limit: int) -> list[Batch]:
    """The newest complete batches, newest first."""
    whole = select(Batch).where(Batch.complete_at.is_not(None))
    return list(session.scalars(whole.order_by(Batch.id.desc()).limit(limit)))


def jobs_of(
    session: Session,
    batch_id: str,
    *,
    after: str = "",
    limit: int | None = None,
    with_spec: bool = False,
    kept: bool = True,
) -> list[Job]:
    """A batch's jobs in the order of its lines; `after` is the previous page's last id.

    With `kept`, also those that were removed and whose artifacts were kept.
    """
    statement = select(Job).where(Job.batch_id == batch_id, Job.id > after).order_by(Job.id)
    if not kept:
        statement = statement.where(not_hidden(Job.id))
    if with_spec:
        statement = statement.options(undefer(Job.spec))
    return list(session.scalars(statement.limit(limit)))


def job_ids(session: Session, batch_id: str) -> list[str]:
    """The ids of a batch's jobs, in the order of its lines."""
    return list(session.scalars(select(Job.id).where(Job.batch_id == batch_id).order_by(Job.id)))


def incomplete() -> Select[str]:
    """The ids of incomplete batches, from an index that holds no others."""
    return select(Batch.id).where(Batch.complete_at.is_(None))


def incomplete_batches(session: Session) -> list[str]:
    """The ids of incomplete batches: few at any time, mostly none."""
    return list(session.scalars(incomplete()))


def visible(batch_id: ColumnElement[Any] | InstrumentedAttribute[Any]) -> ColumnElement[bool]:
    """Whether a job, by its column `batch_id`, is in no incomplete batch."""
    return or_(batch_id.is_(None), batch_id.not_in(incomplete()))


def abandoned(session: Session, older_than_s: float) -> list[str]:
    """Incomplete batches to which nothing was added for `older_than_s`, oldest first."""
    written = func.coalesce(_last_written(), Batch.created_at)
    before = clock(session) - timedelta(seconds=older_than_s)
    statement = select(Batch.id).where(Batch.complete_at.is_(None), written < before)
    return list(session.scalars(statement.order_by(Batch.id)))


def is_incomplete(session: Session, batch_id: str) -> bool:
    """Whether the batch is on record and incomplete."""
    return session.scalar(incomplete().where(Batch.id == batch_id)) is not None


def delete_some(session: Session, batch_id: str, limit: int = DELETED_AT_ONCE) -> int:
    """Delete some jobs of an incomplete batch, and it with the last; return how many jobs.

    Of jobs with many shards, some of these go first, and no job. It holds locks for a fraction of a
    second, however large the jobs are.
    """
    batch = _locked(session, batch_id)
    if batch is None or batch.complete_at is not None:
        return 0
    if batch.discarded_at is None:
        batch.discarded_at = clock(session)
        session.flush()
    # newest first: the first job holds the idempotency key, which nobody takes meanwhile
    newest = select(Job.id).where(Job.batch_id == batch_id).order_by(Job.id.desc())
    ids: Sequence[str] = session.scalars(newest.limit(limit)).all()
    some = select(Shard.id).where(Shard.job_id.in_(ids)).limit(SHARDS_AT_ONCE)
    shard_ids = session.scalars(some).all()
    _delete(session, delete(Shard).where(Shard.id.in_(shard_ids)))
    if len(shard_ids) == SHARDS_AT_ONCE:
        return 0
    _delete(session, delete(Transition).where(Transition.job_id.in_(ids)))
    _delete(session, delete(Job).where(Job.id.in_(ids)))
    if len(ids) < limit:
        session.execute(delete(Batch).where(Batch.id == batch_id))
    return len(ids)


def _delete(session: Session, statement: Delete) -> None:
    session.execute(statement.execution_options(synchronize_session=False))


def _last_written() -> ScalarSelect[datetime]:
    """When the last job was added to a batch: its time, found by an index."""
    latest = select(Job.created_at).where(Job.batch_id == Batch.id).order_by(Job.id.desc()).limit(1)
    return latest.scalar_subquery()


def _locked(session: Session, batch_id: str) -> Batch | None:
    statement = select(Batch).where(Batch.id == batch_id).with_for_update(key_share=True)
    found: Batch | None = session.scalar(statement.execution_options(populate_existing=True))
    return found
