"""Reaping: shards are taken back whose lease has expired or whose worker has died.

They are queued again or, at the limit of claims lost without progress, they are poison and fail.
"""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select, text
from sqlalchemy.orm import Session

from db.columns import Id
from db.moves import end_attempts, end_job, lock_jobs, lock_shard, move_shard
from db.session import clock
from db.states import JobState, ShardState
from db.tables import Attempt, Checkpoint, Shard

MAX_CLAIMS = 8
REAPED_AT_ONCE = 100


def expired(session: Session, *, without: Collection[str] = ()) -> list[str]:
    """Some shards whose lease has expired: `reap` them."""
    found = select(Shard.id).where(Shard.status == _RUNNING, _is_past(clock(session)))
    others = found.where(Shard.id.not_in(without)) if without else found
    return list(session.scalars(others.order_by(Shard.job_id, Shard.idx).limit(REAPED_AT_ONCE)))


def reap(
    session: Session, shards: Collection[str] | None = None, *, max_claims: int = MAX_CLAIMS
) -> list[str]:
    """Requeue shards whose lease has expired, some or these; return their ids.

    A shard whose lease expired `max_claims` times is poison: it fails, and its job with it. Of a
    training, those before its newest checkpoint do not count. What others have locked is left to
    the next time.
    """
    lost = _is_past(clock(session))
    if shards is not None:
        lost = and_(lost, Shard.id.in_(shards))
    why = "the lease expired: its worker stopped reporting"
    return _take_back(session, lost, has_expired, why, max_claims=max_claims)


def reap_worker(session: Session, owner: str, *, max_claims: int = MAX_CLAIMS) -> list[str]:
    """`reap`, but the shards of a worker boot that is known to be dead, expired or not."""

    def is_held(shard: Any, _: datetime) -> bool:
        return bool(shard.status == ShardState.RUNNING and shard.owner == owner)

    why = "its worker died"
    return _take_back(session, Shard.owner == owner, is_held, why, max_claims=max_claims)


def holds(session: Session, owner: str) -> bool:
    """Whether a worker boot holds any shard."""
    held = select(Shard.id).where(Shard.status == _RUNNING, Shard.owner == owner).limit(1)
    return session.scalar(held) is not None


def requeue(
    session: Session,
    shard: Shard,
    reason: str,
    *,
    at: datetime,
    pause_s: float = 0,
    **counted: int,
) -> None:
    """Put a locked shard back into the queue, due after `pause_s`."""
    also = {
        "not_before": at + timedelta(seconds=pause_s),
        "waiting": pause_s > 0,
        "dispatched_at": None,
        "last_error": reason,
    }
    move_shard(session, shard, ShardState.QUEUED, at=at, reason=reason, **also, **counted)


def give_up(
    session: Session, job: Any, shard: Shard, error: str, *, at: datetime, **counted: int
) -> None:
    """Fail a locked shard and its exclusively locked job."""
    also = {"last_error": error} | counted
    move_shard(session, shard, ShardState.FAILED, at=at, reason=error, **also)
    samples = f"samples {shard.start} to {shard.stop - 1}: "
    which = samples if job.kind == "generate" else ""
    end_job(session, job, JobState.FAILED, reason=which + error)


def has_expired(shard: Any, now: datetime) -> bool:
    """Whether a shard is running without a lease that still holds."""
    is_late = shard.lease_until is None or shard.lease_until < now
    return shard.status == ShardState.RUNNING and is_late


def is_poison(session: Session, shard: Any, max_claims: int) -> bool:
    """Whether a shard's claims, the current one included, were lost too often without progress."""
    if shard.claims - shard.failures - shard.releases < max_claims:
        return False
    lost = session.scalar(_LOST_SINCE_CHECKPOINT, {"shard": shard.id}) or 0
    return lost + 1 >= max_claims


def _is_past(now: datetime) -> ColumnElement[bool]:
    # a running shard without a lease has lost it; NULL is never less than `now`
    return or_(Shard.lease_until.is_(None), Shard.lease_until < now)


def _take_back(
    session: Session,
    condition: Any,
    is_lost: Callable[[Any, datetime], bool],
    why: str,
    *,
    max_claims: int,
) -> list[str]:
    """Requeue some running shards that meet a condition, checked again under lock by `is_lost`."""
    lost = select(Shard.id, Shard.job_id, *_COUNTERS).where(Shard.status == _RUNNING, condition)
    found = session.execute(lost.order_by(Shard.job_id, Shard.idx).limit(REAPED_AT_ONCE)).all()
    return [row.id for row in found if _reap_one(session, row, is_lost, why, max_claims=max_claims)]


def _reap_one(
    session: Session,
    found: Any,
    is_lost: Callable[[Any, datetime], bool],
    why: str,
    *,
    max_claims: int,
) -> bool:
    poison = is_poison(session, found, max_claims)
    job = lock_jobs(session, [found.job_id], shared=not poison, skip_locked=True)
    shard = lock_shard(session, found.id, skip_locked=True)
    now = clock(session)
    if not job or shard is None or shard.fence != found.fence or not is_lost(shard, now):
        return False
    end_attempts(session, [shard.id], "lost", at=now, error=why)
    # a worker that is late may have stored a checkpoint meanwhile
    if poison and is_poison(session, shard, max_claims):
        reason = f"poison: its workers stopped reporting {max_claims} times"
        give_up(session, job[shard.job_id], shard, reason, at=now)
        return False
    requeue(session, shard, why, at=now)
    return True


_RUNNING = text("'running'")  # a literal, so that the partial index is used
_COUNTERS = (Shard.fence, Shard.claims, Shard.failures, Shard.releases)

_NEWEST = (
    select(Checkpoint.fence)
    .where(Checkpoint.shard_id == bindparam("shard", type_=Id))
    .order_by(Checkpoint.step.desc())
    .limit(1)
    .scalar_subquery()
)
# the claim that stored a checkpoint and was lost afterwards is one of them
_LOST_SINCE_CHECKPOINT = select(func.count()).where(
    Attempt.shard_id == bindparam("shard", type_=Id),
    Attempt.outcome == "lost",
    Attempt.fence >= func.coalesce(_NEWEST, 0),
)
