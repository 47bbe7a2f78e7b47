"""Free shards: what a claim reads of them, and locks, together with their jobs."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, any_, bindparam, func, select
from sqlalchemy.orm import Session

from db.batches import visible
from db.columns import Id
from db.moves import lock_jobs
from db.session import Now
from db.states import JobState, ShardState
from db.tables import JOBS, SHARDS

OPEN_JOBS = frozenset({JobState.QUEUED, JobState.RUNNING})
LOCK_TRIES, LOCK_PAUSE_S = 10, 0.005


def find(session: Session, shard_id: str, *, lock: bool = False) -> Any | None:
    """A shard's row with its job's state, and the time; locked if asked for, but not its job.

    None for a shard of an incomplete batch: whoever rings for one read its id from the record.
    """
    return session.execute(_ONE_LOCKED if lock else _ONE, {"id": shard_id}).one_or_none()


def lock_free(
    session: Session, wanted: Sequence[str], count: int
) -> tuple[Sequence[Any], Mapping[str, str]]:
    """Lock `count` of the wanted shards, the first ones that nobody has, and their jobs.

    Returns them, and the states of the jobs, by their ids.
    """
    if not wanted:
        return [], {}
    jobs: Mapping[str, str]
    if session.get_bind().dialect.name == "sqlite":  # the transaction is the lock
        places = {shard_id: place for place, shard_id in enumerate(wanted[:count])}
        rows = session.execute(_WANTED, {"ids": [*places]}).all()
        jobs = {row.job_id: row.job_status for row in rows}
    else:
        rows = session.execute(_WANTED_LOCKED, {"ids": list(wanted), "count": count}).all()
        places = {shard_id: place for place, shard_id in enumerate(wanted)}
        jobs = _lock_jobs_of(session, rows)
    held = [row for row in rows if jobs.get(row.job_id) in OPEN_JOBS]
    return sorted(held, key=lambda row: places[row.id]), jobs


def _lock_jobs_of(session: Session, rows: Sequence[Any]) -> Mapping[str, str]:
    """Lock the jobs of shards, exclusively those that begin with them; skip what others hold.

    Returns the states of the locked jobs, by their ids.
    """
    begin = {row.job_id for row in rows if row.job_status == JobState.QUEUED}
    go_on = {row.job_id for row in rows if row.job_status == JobState.RUNNING}
    for _ in range(LOCK_TRIES):
        found = lock_jobs(session, begin, shared=False, skip_locked=True)
        found |= lock_jobs(session, go_on, shared=True, skip_locked=True)
        if found or not (begin or go_on):
            break
        # another worker is just starting the same job; waiting for its lock could be a deadlock
        time.sleep(LOCK_PAUSE_S)
    return {job_id: job.status for job_id, job in found.items()}


# statements of every claim: made once, on the tables themselves, because that is much faster
_shard, _job = SHARDS.c, JOBS.c
_IDS = bindparam("ids", type_=Id, expanding=True)
_CLAIMED: Any = select(
    _shard.id,
    _shard.job_id,
    _shard.idx,
    _shard.start,
    _shard.stop,
    _shard.status,
    _shard.not_before,
    _shard.lease_until,
    _shard.work_key,
    _shard.group_id,
    _shard.fence,
    _shard.claims,
    _shard.failures,
    _shard.releases,
    _job.status.label("job_status"),
    _job.kind,
    _job.samples,
    Now().label("now"),
).join(JOBS, _job.id == _shard.job_id)
_ONE = _CLAIMED.where(_shard.id == bindparam("id"), visible(_job.batch_id))
_ONE_LOCKED = _ONE.with_for_update(key_share=True, of=SHARDS)
_WANTED = _CLAIMED.where(_shard.id.in_(_IDS))
# one array, because the driver parses a statement of many parameters each time
_ARRAY = bindparam("ids", type_=ARRAY(Id))
_WANTED_LOCKED = (
    _CLAIMED.where(_shard.id == any_(_ARRAY), _shard.status == ShardState.QUEUED.value)
    .with_for_update(skip_locked=True, key_share=True, of=SHARDS)
    .order_by(func.array_position(_ARRAY, _shard.id))
    .limit(bindparam("count"))
)
