"""Which queued shards to ring for now: by priority, fairly among batches, and never too many."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import Session

from db.session import clock
from db.states import JobState, ShardState
from db.tables import Job, Shard, Worker

LIVE_S = 60  # a worker that beat within this time counts as one to feed
FEW = 4  # what is rung for when no worker is known yet


def take_due(session: Session, *, per_worker: int, deadline_s: float) -> list[str]:
    """Mark due shards as dispatched and return their ids, for the doorbell after the commit.

    A shard is due when it is queued, its `not_before` has come, and it was never dispatched or not
    claimed within `deadline_s`. No more are taken than keep `per_worker` outstanding for each live
    worker. Two dispatchers never take the same shard.
    """
    now = clock(session)
    room = _room(session, per_worker=per_worker, now=now, deadline_s=deadline_s)
    if room <= 0:
        return []
    wanted = session.scalars(_fairest(now=now, deadline_s=deadline_s).limit(room)).all()
    taken = _lock_still_due(session, wanted, now=now, deadline_s=deadline_s)
    session.execute(
        update(Shard)
        .where(Shard.id.in_(taken))
        .values(dispatched_at=now, dispatch_no=Shard.dispatch_no + 1)
        .execution_options(synchronize_session=False)
    )
    return [shard_id for shard_id in wanted if shard_id in taken]


def forget_rings(session: Session) -> None:
    """Make queued shards that were rung for due again, where the broker has lost its messages."""
    session.execute(
        update(Shard)
        .where(Shard.status == ShardState.QUEUED, Shard.dispatched_at.is_not(None))
        .values(dispatched_at=None)
        .execution_options(synchronize_session=False)
    )


def _room(session: Session, *, per_worker: int, now: datetime, deadline_s: float) -> int:
    beat_since = now - timedelta(seconds=LIVE_S)
    live = select(func.count()).where(Worker.stopped_at.is_(None), Worker.heartbeat_at > beat_since)
    rung_since = now - timedelta(seconds=deadline_s)
    outstanding = select(func.count()).where(
        Shard.status == ShardState.QUEUED, Shard.dispatched_at > rung_since
    )
    workers = session.scalar(live) or 0
    return max(FEW, per_worker * workers) - (session.scalar(outstanding) or 0)


def _due(statement: Select[str], *, now: datetime, deadline_s: float) -> Select[str]:
    rung_before = now - timedelta(seconds=deadline_s)
    return statement.where(
        Shard.status == ShardState.QUEUED,
        Shard.not_before <= now,
        or_(Shard.dispatched_at.is_(None), Shard.dispatched_at <= rung_before),
    )


def _fairest(*, now: datetime, deadline_s: float) -> Select[str]:
    """Due shards in the order to ring: each group's first before any group's second.

    A group is a batch, or a job on its own. What a group has running counts as its first ones.
    """
    group = func.coalesce(Job.batch_id, Job.id)
    busy = (
        select(group.label("name"), func.count().label("size"))
        .join(Shard, Shard.job_id == Job.id)
        .where(Shard.status == ShardState.RUNNING)
        .group_by(group)
        .subquery()
    )
    turn = func.row_number().over(
        partition_by=group, order_by=(Job.priority.desc(), Job.id, Shard.idx)
    )
    rank = turn + func.coalesce(busy.c.size, 0)
    statement = (
        select(Shard.id)
        .join(Job, Job.id == Shard.job_id)
        .outerjoin(busy, busy.c.name == group)
        .where(Job.status.in_([JobState.QUEUED, JobState.RUNNING]))
        .order_by(Job.priority.desc(), rank, Job.id, Shard.idx)
    )
    return _due(statement, now=now, deadline_s=deadline_s)


def _lock_still_due(
    session: Session, wanted: Sequence[str], *, now: datetime, deadline_s: float
) -> set[str]:
    statement = _due(select(Shard.id), now=now, deadline_s=deadline_s).where(Shard.id.in_(wanted))
    return set(session.scalars(statement.with_for_update(skip_locked=True, key_share=True)))
