"""Which queued shards to ring for next: by priority, fairly, and never too many at once."""

from datetime import timedelta

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import Session

from db.batches import visible
from db.session import clock
from db.states import JobState, ShardState
from db.tables import Job, Shard
from db.workers import live

MIN_OUTSTANDING = 4  # while no worker is known yet


def take_due(session: Session, *, per_worker: int, deadline_s: float) -> list[str]:
    """Mark due shards as dispatched and return their ids, to ring for after the commit.

    A shard is due when it is queued, its `not_before` has passed, and it was never dispatched or
    not claimed within `deadline_s`. At most `per_worker` shards are outstanding for each live
    worker: dispatched, but neither claimed nor overdue. Two dispatchers never take the same shard.
    """
    now = clock(session)
    rung_before = now - timedelta(seconds=deadline_s)
    outstanding = select(func.count()).where(
        Shard.status == ShardState.QUEUED, Shard.dispatched_at > rung_before
    )
    allowed = max(MIN_OUTSTANDING, per_worker * len(live(session)))
    room = allowed - (session.scalar(outstanding) or 0)
    if room <= 0:
        return []
    due = (
        Shard.status == ShardState.QUEUED,
        Shard.not_before <= now,
        or_(Shard.dispatched_at.is_(None), Shard.dispatched_at <= rung_before),
    )
    wanted = session.scalars(_in_fair_order().where(*due).limit(room)).all()
    # skip what another dispatcher has locked, and look again: what it took is no longer due
    still_due = select(Shard.id).where(Shard.id.in_(wanted), *due)
    taken = set(session.scalars(still_due.with_for_update(skip_locked=True, key_share=True)))
    session.execute(
        update(Shard)
        .where(Shard.id.in_(taken))
        .values(dispatched_at=now, dispatch_no=Shard.dispatch_no + 1)
        .execution_options(synchronize_session=False)
    )
    return [shard_id for shard_id in wanted if shard_id in taken]


def reset_dispatched(session: Session) -> None:
    """Make dispatched shards due again, after the broker lost its messages."""
    session.execute(
        update(Shard)
        .where(Shard.status == ShardState.QUEUED, Shard.dispatched_at.is_not(None))
        .values(dispatched_at=None)
        .execution_options(synchronize_session=False)
    )


def _in_fair_order() -> Select[str]:
    """Shards in the order to ring for them: every group's first before any group's second.

    A group is a batch, or a job on its own. Its running shards count as its first ones.
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
    return (
        select(Shard.id)
        .join(Job, Job.id == Shard.job_id)
        .outerjoin(busy, busy.c.name == group)
        .where(Job.status.in_([JobState.QUEUED, JobState.RUNNING]), visible(Job.batch_id))
        .order_by(Job.priority.desc(), rank, Job.id, Shard.idx)
    )
