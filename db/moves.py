"""Every change of state of a job or shard: locked, checked against `states`, recorded.

What goes as planned is told by the row itself: of a job, when it was enqueued, began and succeeded;
of a shard, its worker, when the attempt began and when it succeeded. A transition is written for
every other move, and a row of `attempts` for an attempt without success.

The job is locked first, then the shard: shared by claims, commits and requeues, exclusively by
whatever moves the job. A transaction never turns its shared lock into an exclusive one: two that
tried would wait for each other. Whoever looks without waiting (SKIP LOCKED) may lock in any order.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import bindparam, insert, literal, select, update
from sqlalchemy.orm import Session

from db import ended_jobs
from db.columns import PlainText, UtcDateTime, fresh_ids
from db.commits import NewManifest
from db.errors import GenmillError
from db.session import clock
from db.states import FINAL, JOB_MOVES, SHARD_MOVES, JobState, ShardState
from db.tables import JOBS, Attempt, Job, Shard, Transition
from db.tuples import Tuple, insert_tuples, update_tuples

TOLD_BY_ROW = frozenset({JobState.RUNNING, JobState.SUCCEEDED})  # of a job: when it came to be that
NOT_HELD = {"owner": None, "lease_until": None, "started_at": None}  # a shard's columns
Move = tuple[str, str | None, str | None, str, str | None]


def lock_jobs(
    session: Session, ids: Collection[str], *, shared: bool, skip_locked: bool = False
) -> dict[str, Any]:
    """Lock the rows of jobs until the transaction ends; their id, status, kind and samples.

    They are locked in the order of their ids. With `skip_locked`, those that others hold are left
    out; otherwise it waits for them.
    """
    if not ids:
        return {}
    locked = session.execute(_LOCKED[shared, skip_locked], {"ids": list(ids)})
    return {row.id: row for row in locked}


def _locking(*, shared: bool, skip_locked: bool) -> Any:
    job = JOBS.c
    # not the spec, which can be large
    jobs = select(job.id, job.status, job.kind, job.samples).order_by(job.id)
    # FOR NO KEY UPDATE: rows that refer to a locked one may still be inserted
    return jobs.where(job.id.in_(bindparam("ids", expanding=True))).with_for_update(
        read=shared, key_share=not shared, skip_locked=skip_locked, of=JOBS
    )


_LOCKED = {
    (shared, skip_locked): _locking(shared=shared, skip_locked=skip_locked)
    for shared in (True, False)
    for skip_locked in (True, False)
}


def lock_job(session: Session, job_id: str, *, shared: bool = False) -> Any | None:
    """Lock a job's row until the transaction ends; its id, status, kind and samples."""
    return lock_jobs(session, [job_id], shared=shared).get(job_id)


def lock_shard(session: Session, shard_id: str, *, skip_locked: bool = False) -> Shard | None:
    """Lock a shard's row until the transaction ends, and return its current state."""
    statement = _locked(select(Shard).where(Shard.id == shard_id), skip_locked=skip_locked)
    found: Shard | None = session.scalar(statement)
    return found


def move_job(
    session: Session,
    job: Any,
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
    if move_jobs(session, [job.id], old, new, at=at, reason=reason, **also) != 1:
        raise GenmillError(f"job {job.id} was changed by another transaction meanwhile")


def move_jobs(
    session: Session,
    ids: Sequence[str],
    old: JobState,
    new: JobState,
    *,
    at: datetime,
    reason: str | None = None,
    **also: Any,
) -> int:
    """Move locked jobs from `old` to `new` and set the columns `also`; return how many moved."""
    if not ids:
        return 0
    if new in FINAL:
        also["finished_at"] = at
    statement = update(Job).where(Job.id.in_(ids), Job.status == old).values(status=new, **also)
    moved: Any = session.execute(statement)
    if new not in TOLD_BY_ROW:
        record_transitions(session, [(each, None, old, new, reason) for each in ids], at=at)
    if new in FINAL:
        release_published(session, ids)
    return int(moved.rowcount)


def succeed_jobs(session: Session, manifests: Mapping[str, NewManifest], *, at: datetime) -> None:
    """End jobs as succeeded that this transaction has locked and whose shards have succeeded."""
    rows = [(*_manifest_row(manifest), job_id) for job_id, manifest in manifests.items()]
    update_tuples(session, Job, _MANIFEST, rows, status=JobState.SUCCEEDED, finished_at=at)


def release_published(session: Session, ids: Sequence[str]) -> None:
    """Let retention come again to what those of these ended jobs that publish were to publish.

    Of that, only what is published is kept from now on.
    """
    about: Any = Job.spec["job"].as_string()
    found = session.scalars(select(about).where(Job.id.in_(ids), Job.kind == "publish"))
    if published := [each for each in found if each]:
        ended_jobs.look_again(session, published)


_MANIFEST = (
    "manifest_key",
    "manifest_pack",
    "manifest_offset",
    "manifest_size",
    "manifest_sha256",
)


def _manifest_row(manifest: NewManifest) -> Tuple:
    place = manifest.place
    if isinstance(place, str):
        return (place, None, None, None, manifest.sha256)
    return (None, place.pack, place.offset, place.size, manifest.sha256)


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
        also |= NOT_HELD
    statement = (
        update(Shard)
        .where(Shard.id == shard.id, Shard.status == old, Shard.fence == shard.fence)
        .values(status=new, **also)
    )
    result: Any = session.execute(statement)
    if result.rowcount != 1:
        raise GenmillError(f"shard {shard.id} was changed by another transaction meanwhile")
    record_transitions(session, [(shard.job_id, shard.id, old, new, reason)], at=at)


def end_attempts(
    session: Session, shards: Collection[str], outcome: str, *, at: datetime, error: str
) -> None:
    """Record the attempts at these locked, running shards, which end without success.

    Call it before the shards are changed: the attempts are copied from their rows.
    """
    if not shards:
        return
    current = (Shard.id, Shard.fence, Shard.owner, Shard.started_at)
    end = (literal(at, UtcDateTime), literal(outcome), literal(error, PlainText))
    ended = select(*current, *end).where(Shard.id.in_(shards))
    names = ("shard_id", "fence", "worker", "started_at", "ended_at", "outcome", "error")
    session.execute(insert(Attempt).from_select(names, ended))


def settle_job(session: Session, job: Any) -> JobState:
    """Move an exclusively locked job to finalizing if all its shards have succeeded.

    Returns its state.
    """
    if job.status != JobState.RUNNING:
        return JobState(job.status)
    others = select(Shard.id).where(Shard.job_id == job.id, Shard.status != ShardState.SUCCEEDED)
    if session.scalar(others.limit(1)) is not None:
        return JobState.RUNNING
    move_job(session, job, JobState.FINALIZING, at=clock(session))
    return JobState.FINALIZING


def end_job(session: Session, job: Any, new: JobState, *, reason: str) -> None:
    """Fail or cancel an exclusively locked job, and cancel each of its shards that has not ended.

    Their workers find out at the next heartbeat, and cannot commit.
    """
    at = clock(session)
    states = [ShardState.QUEUED, ShardState.RUNNING]
    still_open = select(Shard.id, Shard.status).where(
        Shard.job_id == job.id, Shard.status.in_(states)
    )
    found = session.execute(_locked(still_open.order_by(Shard.idx))).all()
    running = [row.id for row in found if row.status == ShardState.RUNNING]
    end_attempts(session, running, "cancelled", at=at, error=reason)
    # one statement for all: a job may have a hundred thousand
    session.execute(
        update(Shard)
        .where(Shard.job_id == job.id, Shard.status.in_(states))
        .values(status=ShardState.CANCELLED, waiting=False, **NOT_HELD)
    )
    moves = [(job.id, row.id, row.status, ShardState.CANCELLED, reason) for row in found]
    record_transitions(session, moves, at=at)
    error = reason if new is JobState.FAILED else None
    move_job(session, job, new, at=at, reason=reason, error=error)


def record_transitions(session: Session, moves: Iterable[Move], *, at: datetime) -> None:
    """Append transitions, each given as (job id, shard id, old state, new state, reason)."""
    names = ("id", "job_id", "shard_id", "old", "new")
    ids = fresh_ids()
    # nearly always one reason for all, so that the others can go to the driver as they are
    for reason, some in groupby(moves, key=lambda move: move[-1]):
        rows = [(row_id, *map(_plain, move[:-1])) for row_id, move in zip(ids, some, strict=False)]
        insert_tuples(session, Transition, names, rows, at=at, reason=reason)


def _plain(value: str | None) -> str | None:
    return None if value is None else str(value)


def _locked(statement: Any, *, skip_locked: bool = False) -> Any:
    # `populate_existing` makes the session read rows again that it has loaded before
    locked = statement.with_for_update(key_share=True, skip_locked=skip_locked, of=Shard)
    return locked.execution_options(populate_existing=True)
