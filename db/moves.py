"""Every change of state of a job or shard: locked, checked against `states`, recorded.

The job is locked first, then the shard. Whoever holds a job's lock sees the current state of all
its shards: of two shards that finish at once, the second sees the first, and nothing is committed
after a cancellation.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from db.columns import new_id
from db.errors import GenmillError
from db.session import clock, insert_rows
from db.states import FINAL, JOB_MOVES, SHARD_MOVES, JobState, ShardState
from db.tables import Attempt, Job, Shard, Transition

T = TypeVar("T", Job, Shard)


def lock(session: Session, table: type[T], row_id: str) -> T | None:
    """Lock a job's or shard's row until the transaction ends, and return its current state.

    Lock a shard's row only after its job's.
    """
    return session.scalar(_locked(select(table).where(table.id == row_id)))


def move_job(
    session: Session,
    job: Job,
    new: JobState,
    *,
    at: datetime,
    reason: str | None = None,
    **also: Any,
) -> None:
    """Move a locked job to `new` and set the columns `also`; raise if the move is not allowed."""
    old = JobState(job.status)
    if new not in JOB_MOVES[old]:
        raise GenmillError(f"job {job.id} cannot go from {old} to {new}")
    if new in FINAL:
        also["finished_at"] = at
    statement = update(Job).where(Job.id == job.id, Job.status == old).values(status=new, **also)
    _update_one(session, statement, what=f"job {job.id}")
    record_transitions(session, [(job.id, None, old, new, reason)], at=at)


def move_shard(
    session: Session,
    shard: Shard,
    new: ShardState,
    *,
    at: datetime,
    reason: str | None = None,
    **also: Any,
) -> None:
    """Move a locked shard to `new` and set the columns `also`; raise if it is not allowed."""
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
    _update_one(session, statement, what=f"shard {shard.id}")
    record_transitions(session, [(shard.job_id, shard.id, old, new, reason)], at=at)


def end_attempt(
    session: Session, shard: Shard, outcome: str, *, at: datetime, error: str | None = None
) -> None:
    """Close the attempt that has the shard's current fence."""
    session.execute(
        update(Attempt)
        .where(Attempt.shard_id == shard.id, Attempt.fence == shard.fence)
        .where(Attempt.ended_at.is_(None))
        .values(ended_at=at, outcome=outcome, error=error)
    )


def settle_job(session: Session, job: Job) -> JobState:
    """Move a locked job to finalizing if all its shards have succeeded; return its state."""
    if job.status != JobState.RUNNING:
        return JobState(job.status)
    others = select(Shard.id).where(Shard.job_id == job.id, Shard.status != ShardState.SUCCEEDED)
    if session.scalar(others.limit(1)) is None:
        move_job(session, job, JobState.FINALIZING, at=clock(session))
    return JobState(job.status)


def end_job(session: Session, job: Job, new: JobState, *, reason: str) -> None:
    """Fail or cancel a locked job, and cancel each of its shards that has not ended.

    Their workers find out at the next heartbeat, and cannot commit.
    """
    at = clock(session)
    shards = select(Shard).where(Shard.job_id == job.id).order_by(Shard.idx)
    running = _locked(shards.where(Shard.status == ShardState.RUNNING))
    for shard in session.scalars(running).all():
        end_attempt(session, shard, "cancelled", at=at, error=reason)
        move_shard(session, shard, ShardState.CANCELLED, at=at, reason=reason)
    queued = _locked(shards.where(Shard.status == ShardState.QUEUED))
    ids = [shard.id for shard in session.scalars(queued)]
    # one statement for all queued shards: a job may have ten thousand
    session.execute(
        update(Shard)
        .where(Shard.job_id == job.id, Shard.status == ShardState.QUEUED)
        .values(status=ShardState.CANCELLED)
    )
    moves = [(job.id, each, ShardState.QUEUED, ShardState.CANCELLED, reason) for each in ids]
    record_transitions(session, moves, at=at)
    error = reason if new is JobState.FAILED else None
    move_job(session, job, new, at=at, reason=reason, error=error)


def record_transitions(
    session: Session,
    moves: Iterable[tuple[str, str | None, str | None, str, str | None]],
    *,
    at: datetime,
) -> None:
    """Append transitions, each given as (job id, shard id, old state, new state, reason)."""
    names = ("job_id", "shard_id", "old", "new", "reason")
    rows = [dict(zip(names, move, strict=True)) | {"id": new_id(), "at": at} for move in moves]
    insert_rows(session, Transition, rows)


def _locked(statement: Select[T]) -> Select[T]:
    # NO KEY UPDATE: rows that only refer to these may still be inserted. `populate_existing` makes
    # the session read rows again that it has loaded before.
    return statement.with_for_update(key_share=True).execution_options(populate_existing=True)


def _update_one(session: Session, statement: Any, *, what: str) -> None:
    result: Any = session.execute(statement)
    if result.rowcount != 1:
        raise GenmillError(f"{what} was changed by another transaction meanwhile")
