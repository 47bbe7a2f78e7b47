"""Training states that a shard can resume from. A checkpoint exists once its row does."""

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from db.claims import Claim, hold
from db.session import clock, upsert
from db.tables import Checkpoint

KEPT = 2


def add_checkpoint(
    session: Session, claim: Claim, *, step: int, key: str, sha256: str, size: int
) -> None:
    """Record a stored checkpoint under the claim; the newest two good ones are kept on record.

    Raises `Cancelled` or `LeaseLost`: a zombie's checkpoint is never used.
    """
    hold(session, claim)
    row = {
        "shard_id": claim.shard_id,
        "step": step,
        "fence": claim.fence,
        "key": key,
        "sha256": sha256,
        "size": size,
        "bad": False,
        "created_at": clock(session),
    }
    upsert(session, Checkpoint, [row])
    _forget_older(session, claim.shard_id)


def latest_checkpoint(session: Session, shard_id: str) -> Checkpoint | None:
    """The newest checkpoint of a shard that was not found bad."""
    newest: Checkpoint | None = session.scalar(
        select(Checkpoint)
        .where(Checkpoint.shard_id == shard_id, Checkpoint.bad.is_(False))
        .order_by(Checkpoint.step.desc())
        .limit(1)
    )
    return newest


def mark_bad(session: Session, shard_id: str, step: int) -> None:
    """Note that a checkpoint could not be used, so that the one before it is taken."""
    session.execute(
        update(Checkpoint)
        .where(Checkpoint.shard_id == shard_id, Checkpoint.step == step)
        .values(bad=True)
    )


def _forget_older(session: Session, shard_id: str) -> None:
    good = select(Checkpoint.step).where(Checkpoint.shard_id == shard_id, Checkpoint.bad.is_(False))
    kept = session.scalars(good.order_by(Checkpoint.step.desc()).limit(KEPT)).all()
    session.execute(
        delete(Checkpoint).where(Checkpoint.shard_id == shard_id, Checkpoint.step < min(kept))
    )
