"""All attempts at a shard, as the audit puts them together."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import Attempt, Shard
from scheduler.audit.history import Row, moves_of, put_together

__all__ = ["attempts_at", "moves_of"]


def attempts_at(session: Session, shard_id: str) -> list[Row]:
    """The attempts at a shard in the order of their fences; a current one has no outcome."""
    columns, shard = Attempt.__table__.columns, Shard.__table__
    ended = session.execute(select(*columns).where(Attempt.shard_id == shard_id))
    own = session.execute(select(*shard.columns).where(shard.c.id == shard_id))
    return put_together([row._mapping for row in ended], [row._mapping for row in own])
