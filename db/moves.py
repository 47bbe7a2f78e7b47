"""Every change of state of a job or shard: locked, checked against the table, written down.

Locks are taken job first, then shard. Whoever holds a job's lock sees every shard of it as it is:
two last shards cannot miss one another, and no commit can follow a cancellation.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from db.columns import new_id
from db.errors import GenmillError
from db.session import clock, insert_rows
from db.states import FINAL, JOB_MOVES, SHARD_MOVES, JobState, ShardState
from db.tables import Attempt, Job, Shard, Transition


def lock_job(session: Session, job_id: str) -> Job | None:
    """Lock a job's row until the transaction ends, and return it as it is now."""
    found: Job | None = session.scalar(
        select(Job)
        .where(Job.id == job_id)
        # NO KEY UPDATE: rows that only refer to the job may still be inserted beside us
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return found


def lock_shard(session: Session, shard_id: str) -> Shard | None:
    """Lock a shard's row, its job's being locked already, and return it as it is now."""
    found: Shard | None = session.scalar(
        select(Shard)
        .where(Shard.id == shard_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return found


def move_job(
    session: Session,
    job: Job,
    new: JobState,
    *,
    at: datetime,
    reason: str | None = None,
    **also: Any,
) -> None:
    """Move a locked job to `new`, setting the columns `also`; raise if that is not allowed."""
    old = JobState(job.status)
    if new not in JOB_MOVES[old]:
        raise GenmillError(f"job {job.id} cannot go from {old} to {new}")
    if new in FINAL:
        also["finished_at"] = at
    statement = update(Job).where(Job.id == job.id, Job.status == old).values(status=new, **also)
    _changed_one(session, statement, what=f"job {job.id}")
    write_down(session, [(job.id, None, old, new, reason)], at=at)


def move_shard(
    session: Session,
    shard: Shard,
    new: ShardState,
    *,
    at: datetime,
    reason: str | None = None,
    **also: Any,
) -> None:
    """Move a locked shard to `new`, setting the columns `also`; raise if that is not allowed."""
    old = ShardState(shard.status)
    if new not in SHARD_MOVES[old]:
        raise GenmillError(f"shard {shard.id} cannot go from {old} to {new}")
    if new is not ShardState.RUNNING:
        also |= {"owner": None, "lease_until": None}
    statement = (
        update(Shard)
        .where(Shard.id == shard.id, Shard.status == old, Shard.fence == shard.fence)
        .values(status=new, **also)
    )
    _changed_one(session, statement, what=f"shard {shard.id}")
    write_down(session, [(shard.job_id, shard.id, old, new, reason)], at=at)


def end_attempt(
    session: Session, shard: Shard, outcome: str, *, at: datetime, error: str | None = None
) -> None:
    """Close the attempt that holds the shard's present fence."""
    session.execute(
        update(Attempt)
        .where(Attempt.shard_id == shard.id, Attempt.fence == shard.fence)
        .where(Attempt.ended_at.is_(None))
        .values(ended_at=at, outcome=outcome, error=error)
    )


def settle_job(session: Session, job: Job) -> JobState:
    """Move a locked job on if all its shards have succeeded; return its state."""
    if job.status != JobState.RUNNING:
        return JobState(job.status)
    others = select(Shard.id).where(Shard.job_id == job.id, Shard.status != ShardState.SUCCEEDED)
    if session.scalar(others.limit(1)) is None:
        move_job(session, job, JobState.FINALIZING, at=clock(session))
    return JobState(job.status)


def end_job(session: Session, job: Job, new: JobState, *, reason: str) -> None:
    """Fail or cancel a locked job with every shard of it that is not final.

    Workers that hold one learn of it at their next heartbeat; nothing of theirs is committed.
    """
    at = clock(session)
    _end_running(session, job, at=at, reason=reason)
    _cancel_queued(session, job, at=at, reason=reason)
    error = reason if new is JobState.FAILED else None
    move_job(session, job, new, at=at, reason=reason, error=error)


def _end_running(session: Session, job: Job, *, at: datetime, reason: str) -> None:
    for shard in session.scalars(_shards(job, ShardState.RUNNING)).all():
        end_attempt(session, shard, "cancelled", at=at, error=reason)
        move_shard(session, shard, ShardState.CANCELLED, at=at, reason=reason)


def _cancel_queued(session: Session, job: Job, *, at: datetime, reason: str) -> None:
    # one statement for all: a job may have ten thousand of them
    ids = [shard.id for shard in session.scalars(_shards(job, ShardState.QUEUED))]
    session.execute(
        update(Shard)
        .where(Shard.job_id == job.id, Shard.status == ShardState.QUEUED)
        .values(status=ShardState.CANCELLED)
    )
    old, new = ShardState.QUEUED, ShardState.CANCELLED
    write_down(session, [(job.id, shard_id, old, new, reason) for shard_id in ids], at=at)


def _shards(job: Job, status: ShardState) -> Select[Shard]:
    return (
        select(Shard)
        .where(Shard.job_id == job.id, Shard.status == status)
        .order_by(Shard.idx)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def write_down(
    session: Session,
    moves: Iterable[tuple[str, str | None, str | None, str, str | None]],
    *,
    at: datetime,
) -> None:
    """Append transitions given as (job id, shard id, old, new, reason)."""
    names = ("job_id", "shard_id", "old", "new", "reason")
    rows = [dict(zip(names, move, strict=True)) | {"id": new_id(), "at": at} for move in moves]
    insert_rows(session, Transition, rows)


def _changed_one(session: Session, statement: Any, *, what: str) -> None:
    result: Any = session.execute(statement)
    if result.rowcount != 1:
        raise GenmillError(f"{what} was changed by someone else in between")
