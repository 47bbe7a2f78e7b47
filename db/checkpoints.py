"""Checkpoints: training states that a shard can resume from. One exists once its row does."""

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db.claims import Claim, hold
from db.session import clock, upsert
from db.tables import Checkpoint

KEPT = 2


def add_checkpoint(
    session: Session, claim: Claim, *, step: int, key: str, sha256: str, size: int
) -> None:
    """Record a stored checkpoint; delete the rows of those older than the two newest good ones.

    Raises `Cancelled` or `LeaseLost`: a checkpoint of a worker that lost its lease is never used.
    """
    hold(session, claim)
    # a step that is reached again, after a bad checkpoint, is no progress: see `db.leases`
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
    good = select(Checkpoint.step).where(
        Checkpoint.shard_id == claim.shard_id, Checkpoint.bad.is_(False)
    )
    kept = session.scalars(good.order_by(Checkpoint.step.desc()).limit(KEPT)).all()
    session.execute(
        delete(Checkpoint).where(Checkpoint.shard_id == claim.shard_id, Checkpoint.step < min(kept))
    )


def latest_checkpoint(session: Session, shard_id: str) -> Checkpoint | None:
    """The newest checkpoint of a shard that is not marked bad."""
    newest: Checkpoint | None = session.scalar(
        select(Checkpoint)
        .where(Checkpoint.shard_id == shard_id, Checkpoint.bad.is_(False))
        .order_by(Checkpoint.step.desc())
        .limit(1)
    )
    return newest


def mark_bad(session: Session, shard_id: str, step: int) -> None:
    """Mark a checkpoint as unusable, so that the shard resumes from the one before it."""
    session.execute(
        update(Checkpoint)
        .where(Checkpoint.shard_id == shard_id, Checkpoint.step == step)
        .values(bad=True)
    )
