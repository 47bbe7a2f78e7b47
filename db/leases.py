"""Leases: claim shards, and take back what has expired (`db.renewals` renews).

A claim carries a fence, a number that grows with each claim of its shard. Every later step names
it, and changes nothing if the shard has since been claimed again, cancelled or ended.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from sqlalchemy import (
    ARRAY,
    any_,
    bindparam,
    case,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from db.claims import Claim
from db.columns import Id
from db.due import choose
from db.heads import Due
from db.moves import (
    end_attempts,
    end_job,
    lock_job,
    lock_jobs,
    lock_shard,
    move_jobs,
    move_shard,
    record_transitions,
)
from db.session import clock
from db.states import JobState, ShardState
from db.tables import Job, Shard

MAX_CLAIMS = 8
REAPED_AT_ONCE = 100
# shards to choose from: others may take the first ones meanwhile, and groups take turns
CHOICES = 64
LOST_TOGETHER = {1: 8}  # shards claimed together that were lost once; those lost again: one
LOCK_TRIES, LOCK_PAUSE_S = 10, 0.005


def claim(
    session: Session, shard_id: str, *, owner: str, lease_s: float, max_claims: int = MAX_CLAIMS
) -> Claim | None:
    """Claim a queued shard that is due, or one whose lease has expired, for worker boot `owner`.

    The attempt is recorded here, on the shard, before any work. Returns None if another worker has
    the shard, if it has ended or is unknown, or if it was lost `max_claims` times: there is nothing
    to do then.
    """
    found = session.execute(_CLAIMED.where(Shard.id == shard_id)).one_or_none()
    if found is None or not _is_free(found, clock(session), max_claims):
        return None  # not even locked: most doorbells are for shards that somebody has
    job = lock_job(session, found.job_id, shared=found.job_status != JobState.QUEUED)
    if job is None or job.status not in {JobState.QUEUED, JobState.RUNNING}:
        return None
    locked = _CLAIMED.where(Shard.id == shard_id).with_for_update(key_share=True, of=Shard)
    shard = session.execute(locked).one()
    now = clock(session)
    if not _is_free(shard, now, max_claims):
        return None
    [taken] = _take(session, [shard], owner=owner, lease_s=lease_s, at=now)
    return taken


def claim_due(
    session: Session,
    *,
    owner: str,
    lease_s: float,
    prefer: Collection[int] = (),
    limit: int = 1,
    limits: Mapping[int, int] | None = None,
    served: Mapping[str, int] | None = None,
    only: int | None = None,
) -> list[Claim]:
    """Claim the fairest due shard, and with it further small ones of its `work_key` and priority.

    Together they have at most `limit` samples, or what `limits` says for their key, unless the
    first alone has more. A shard of a key in `prefer` goes first among those of its priority; among
    groups that run equally many shards, the one goes first that has the lowest number in `served`,
    so that a worker can serve them in turn. With `only`, nothing is claimed where a shard of
    another key goes first. Never waits for a lock: shards that others are claiming, and jobs that
    are ending, are left out.
    """
    bounds = limits or {}
    room = max(CHOICES, limit, *bounds.values())
    due = choose(session, room, now=clock(session), served=served or {})
    wanted, count = pick(due, prefer, bounds, limit)
    if only is not None and wanted and wanted[0].work_key != only:
        return []
    rows = _lock_free(session, [each.id for each in wanted], count)
    return _take(session, rows, owner=owner, lease_s=lease_s, at=clock(session)) if rows else []


def pick(
    due: Sequence[Due], prefer: Collection[int], limits: Mapping[int, int], limit: int
) -> tuple[list[Due], int]:
    """What to claim, given the due shards in fair order: candidates, best first, and how many.

    More candidates than that, because others may be quicker.
    """
    if not due:
        return [], 0
    peers = [each for each in due if each.urgency == due[0].urgency]
    first = next((each for each in peers if each.work_key in prefer), peers[0])
    alike = (first.work_key, first.lost)
    same = [each for each in peers if (each.work_key, each.lost) == alike]
    if first.work_key is None:
        return same, 1
    sizes = accumulate(each.samples for each in same)
    bound = limits.get(first.work_key, limit)
    count = max(1, sum(size <= bound for size in sizes))
    # one that kills its worker must not take the others to the limit of claims with it
    return same, min(count, LOST_TOGETHER.get(first.lost, 1)) if first.lost else count


def reap(session: Session, *, max_claims: int = MAX_CLAIMS) -> list[str]:
    """Requeue shards whose lease has expired; return their ids.

    A shard whose lease expired `max_claims` times is poison: it fails, and its job with it. What
    others have locked is left to the next time.
    """
    now = clock(session)
    expired = select(Shard.id, Shard.job_id, *_COUNTERS).where(
        Shard.status == text("'running'"),  # a literal, so that the partial index is used
        # a running shard without a lease has lost it; NULL is never less than `now`
        or_(Shard.lease_until.is_(None), Shard.lease_until < now),
    )
    found = session.execute(expired.order_by(Shard.job_id, Shard.idx).limit(REAPED_AT_ONCE)).all()
    return [row.id for row in found if _reap_one(session, row, max_claims=max_claims)]


def _reap_one(session: Session, found: Any, *, max_claims: int) -> bool:
    poison = _times_lost(found) >= max_claims
    job = lock_jobs(session, [found.job_id], shared=not poison, skip_locked=True)
    shard = lock_shard(session, found.id, skip_locked=True)
    now = clock(session)
    if not job or shard is None or shard.fence != found.fence or not _has_expired(shard, now):
        return False
    lost = "the lease expired: its worker stopped reporting"
    end_attempts(session, [shard.id], "lost", at=now, error=lost)
    if poison:
        reason = f"poison: its workers stopped reporting {_times_lost(shard)} times"
        give_up(session, job[shard.job_id], shard, reason, at=now)
        return False
    requeue(session, shard, lost, at=now)
    return True


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


def _is_free(shard: Any, now: datetime, max_claims: int) -> bool:
    due: bool = shard.status == ShardState.QUEUED and shard.not_before <= now
    # a shard that was lost `max_claims` times is left to `reap`, which fails it
    return due or (_has_expired(shard, now) and _times_lost(shard) < max_claims)


def _has_expired(shard: Any, now: datetime) -> bool:
    expired = shard.lease_until is None or shard.lease_until < now
    return shard.status == ShardState.RUNNING and expired


def _times_lost(shard: Any) -> int:
    """Claims that ended in neither a failure nor a release, the current one included."""
    lost: int = shard.claims - shard.failures - shard.releases
    return lost


def _lock_free(session: Session, wanted: Sequence[str], count: int) -> Sequence[Any]:
    """Lock `count` of the wanted shards, the first ones that nobody has, and their jobs."""
    if not wanted:
        return []
    if session.get_bind().dialect.name == "sqlite":  # the transaction is the lock
        queued = _CLAIMED.where(Shard.id.in_(wanted[:count]))
        places = {shard_id: place for place, shard_id in enumerate(wanted)}
        rows = sorted(session.execute(queued), key=lambda row: places[row.id])
    else:
        ids = bindparam("ids", list(wanted), ARRAY(Id))
        place = func.array_position(ids, Shard.id)
        # one array, because the driver parses a statement of many parameters each time
        free = _CLAIMED.where(Shard.id == any_(ids), Shard.status == ShardState.QUEUED)
        locked = free.with_for_update(skip_locked=True, key_share=True, of=Shard)
        rows = list(session.execute(locked.order_by(place).limit(count)))
    jobs = _lock_jobs_of(session, rows)
    return [row for row in rows if row.job_id in jobs]


def _lock_jobs_of(session: Session, rows: Sequence[Any]) -> set[str]:
    """Lock the jobs of shards, those exclusively that begin with them; what others hold is out."""
    begin = {row.job_id for row in rows if row.job_status == JobState.QUEUED}
    go_on = {row.job_id for row in rows if row.job_status == JobState.RUNNING}
    for _ in range(LOCK_TRIES):
        found = lock_jobs(session, begin, shared=False, skip_locked=True)
        found |= lock_jobs(session, go_on, shared=True, skip_locked=True)
        if found or not (begin or go_on):
            break
        # another worker is just starting the same job; waiting for its lock could be a deadlock
        time.sleep(LOCK_PAUSE_S)
    open_states = {JobState.QUEUED, JobState.RUNNING}
    return {job_id for job_id, job in found.items() if job.status in open_states}


def _take(
    session: Session, rows: Sequence[Any], *, owner: str, lease_s: float, at: datetime
) -> list[Claim]:
    """Give locked shards of locked jobs to `owner`."""
    _end_lost(session, [row for row in rows if row.status == ShardState.RUNNING], at=at)
    session.execute(
        update(Shard)
        .where(Shard.id.in_([row.id for row in rows]))
        .values(
            status=ShardState.RUNNING,
            waiting=False,
            fence=Shard.fence + 1,
            claims=Shard.claims + 1,
            owner=owner,
            started_at=at,
            lease_until=at + timedelta(seconds=lease_s),
            heartbeat_seq=0,
            # the samples that another worker has made are made again; a training resumes
            report=case((Shard.work_key.is_(None), Shard.report)),
        )
        .execution_options(synchronize_session=False)
    )
    begun = sorted({row.job_id for row in rows if row.job_status == JobState.QUEUED})
    _begin(session, begun, at=at)
    return [_claim_of(row, owner) for row in rows]


def _end_lost(session: Session, rows: Sequence[Any], *, at: datetime) -> None:
    """Record the ends of attempts whose leases have expired, at shards that are taken over."""
    lost, running = "its lease expired and was taken over", ShardState.RUNNING
    end_attempts(session, [row.id for row in rows], "lost", at=at, error=lost)
    reason = "took over an expired lease"
    record_transitions(
        session, [(row.job_id, row.id, running, running, reason) for row in rows], at=at
    )


def _begin(session: Session, job_ids: Sequence[str], *, at: datetime) -> None:
    """Move jobs to running that are exclusively locked; some may have begun meanwhile."""
    if job_ids:
        queued = select(Job.id).where(Job.id.in_(job_ids), Job.status == JobState.QUEUED)
        begun = session.scalars(queued.order_by(Job.id)).all()
        move_jobs(session, begun, JobState.QUEUED, JobState.RUNNING, at=at, started_at=at)


def _claim_of(row: Any, owner: str) -> Claim:
    return Claim(
        row.id,
        row.job_id,
        row.fence + 1,
        owner,
        row.idx,
        row.start,
        row.stop,
        kind=row.kind,
        alone=row.samples is None or row.samples == row.stop - row.start,
        work_key=row.work_key,
        group_id=row.group_id,
    )


_COUNTERS = (Shard.fence, Shard.claims, Shard.failures, Shard.releases)
_CLAIMED: Any = select(
    Shard.id,
    Shard.job_id,
    Shard.idx,
    Shard.start,
    Shard.stop,
    Shard.status,
    Shard.not_before,
    Shard.lease_until,
    Shard.work_key,
    Shard.group_id,
    *_COUNTERS,
    Job.status.label("job_status"),
    Job.kind,
    Job.samples,
).join(Job, Job.id == Shard.job_id)
