"""Checkpoints: training states that a shard can resume from. One exists once its row does."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from db.claims import Claim, hold
from db.errors import LeaseLost
from db.moves import lock_job, lock_shard
from db.session import clock, upsert
from db.states import ShardState
from db.tables import Attempt, Checkpoint, Job, Shard

KEPT = 2
LEFT_WITHIN = timedelta(minutes=10)  # long before the garbage of an ended job is collected
LEFT_SOON = timedelta(seconds=3)  # usually: a heartbeat, a step and a transfer


def add_checkpoint(
    session: Session, claim: Claim, *, step: int, key: str, sha256: str, size: int
) -> None:
    """Record a stored checkpoint; delete the rows of all but the two newest good ones.

    Raises `Cancelled` or `LeaseLost`: a checkpoint of a worker that lost its lease is never used.
    """
    hold(session, claim)
    _record(session, claim, step=step, key=key, sha256=sha256, size=size, at=clock(session))


def leave_checkpoint(
    session: Session, claim: Claim, *, step: int, key: str, sha256: str, size: int
) -> None:
    """`add_checkpoint` for a shard that was cancelled under this claim: its retry resumes there.

    Nobody can claim the shard any more, so nobody else can leave one. It is dated by the end of the
    attempt, which had made its steps before. Raises `LeaseLost` if the shard has ended otherwise.
    """
    lock_job(session, claim.job_id, shared=True)
    shard = lock_shard(session, claim.shard_id)
    attempt = (Attempt.shard_id == claim.shard_id, Attempt.fence == claim.fence)
    ended_at = session.scalar(select(Attempt.ended_at).where(*attempt))
    found = shard and (shard.status, shard.fence)
    if found != (ShardState.CANCELLED, claim.fence) or ended_at is None:
        raise LeaseLost(f"shard {claim.shard_id} was not cancelled under claim {claim.fence}")
    if clock(session) - ended_at > LEFT_WITHIN:
        raise LeaseLost(f"claim {claim.fence} of shard {claim.shard_id} ended at {ended_at}")
    _record(session, claim, step=step, key=key, sha256=sha256, size=size, at=ended_at)


def _record(
    session: Session, claim: Claim, *, step: int, key: str, sha256: str, size: int, at: datetime
) -> None:
    # a step that is reached again, after a bad checkpoint, is no progress: see `db.reaping`
    reached = session.get(Checkpoint, (claim.shard_id, step))
    row = {
        "shard_id": claim.shard_id,
        "step": step,
        "fence": reached.fence if reached else claim.fence,
        "key": key,
        "sha256": sha256,
        "size": size,
        "bad": False,
        "created_at": at,
    }
    upsert(session, Checkpoint, [row])
    kept = session.scalars(_newest_first(claim.shard_id, Checkpoint.step).limit(KEPT)).all()
    session.execute(
        delete(Checkpoint).where(
            Checkpoint.shard_id == claim.shard_id,
            Checkpoint.step.not_in(kept),
        )
    )


def latest_checkpoint(session: Session, shard_id: str) -> Checkpoint | None:
    """The newest checkpoint of a shard that is not marked bad."""
    newest: Checkpoint | None = session.scalar(_newest_first(shard_id, Checkpoint).limit(1))
    return newest


def checkpoints_of_line(session: Session, job_id: str) -> list[Checkpoint]:
    """The good checkpoints of a training and of those that it retries, one after another.

    The training's own come first, then those of the job that it retries, and so on; of each job the
    newest first.
    """
    found: list[Checkpoint] = []
    seen = set[str]()
    current: str | None = job_id
    while current is not None and current not in seen:
        seen.add(current)
        shard_ids = session.scalars(select(Shard.id).where(Shard.job_id == current)).all()
        for shard_id in shard_ids:
            found += session.scalars(_newest_first(shard_id, Checkpoint))
        current = session.scalar(select(Job.retry_of).where(Job.id == current))
    return found


def is_being_left(session: Session, job_id: str) -> bool:
    """Whether the training that this one retries was cancelled just now and leaves a checkpoint.

    Its worker may not have heard yet, and the retry need not begin further back.
    """
    ended = (
        select(Attempt.shard_id, Attempt.ended_at)
        .join(Shard, Shard.id == Attempt.shard_id)
        .join(Job, Job.retry_of == Shard.job_id)
        .where(Job.id == job_id, Attempt.outcome == "cancelled")
    )
    found = session.execute(ended).first()
    if found is None:
        return False
    passed = clock(session) - found.ended_at
    if not timedelta(0) <= passed <= LEFT_SOON:  # before it: by a clock that was ahead
        return False
    newest = latest_checkpoint(session, found.shard_id)
    return newest is None or newest.created_at < found.ended_at


def mark_bad(session: Session, shard_id: str, step: int) -> None:
    """Mark a checkpoint as unusable, so that the shard resumes from the one before it."""
    session.execute(
        update(Checkpoint)
        .where(Checkpoint.shard_id == shard_id, Checkpoint.step == step)
        .values(bad=True)
    )


def _newest_first(shard_id: str, what: Any) -> Select[Any]:
    """A shard's good checkpoints. A later claim that had to begin anew has written lower steps."""
    good = select(what).where(Checkpoint.shard_id == shard_id, Checkpoint.bad.is_(False))
    return good.order_by(Checkpoint.fence.desc(), Checkpoint.step.desc())
