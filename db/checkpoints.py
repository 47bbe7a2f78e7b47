"""Checkpoints: training states that a shard can resume from. One exists once its row does."""

from typing import Any

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from db.claims import Claim, hold
from db.session import clock, upsert
from db.tables import Checkpoint, Job, Shard

KEPT = 2


def add_checkpoint(
    session: Session, claim: Claim, *, step: int, key: str, sha256: str, size: int
) -> None:
    """Record a stored checkpoint; delete the rows of all but the two newest good ones.

    Raises `Cancelled` or `LeaseLost`: a checkpoint of a worker that lost its lease is never used.
    """
    hold(session, claim)
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
        "created_at": clock(session),
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
