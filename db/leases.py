"""Leases: claim shards, and take back what has expired (`db.renewals` renews).

A claim carries a fence, a number that grows with each claim of its shard. Every later step names
it, and changes nothing if the shard has since been claimed again, cancelled or ended.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, case, func, or_, select, text, update
from sqlalchemy.orm import Session

from db.claims import Claim
from db.columns import Id
from db.due import choose
from db.free_shards import OPEN_JOBS, find, lock_free
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
from db.tables import SHARDS, Attempt, Checkpoint, Shard

MAX_CLAIMS = 8
REAPED_AT_ONCE = 100
# shards to choose from: others may take the first ones meanwhile, and groups take turns
CHOICES = 64
LOST_TOGETHER = {1: 8}  # shards claimed together that were lost once; those lost again: one


def claim(
    session: Session, shard_id: str, *, owner: str, lease_s: float, max_claims: int = MAX_CLAIMS
) -> Claim | None:
    """Claim a queued shard that is due, or one whose lease has expired, for worker boot `owner`.

    The attempt is recorded here, on the shard, before any work. Returns None if another worker has
    the shard, if it has ended or is unknown, or if it was lost `max_claims` times without progress:
    there is nothing to do then.
    """
    found = find(session, shard_id)
    if found is None or not _is_free(session, found, found.now, max_claims):
        return None  # not even locked: most doorbells are for shards that somebody has
    job = lock_job(session, found.job_id, shared=found.job_status != JobState.QUEUED)
    if job is None or job.status not in OPEN_JOBS:
        return None
    shard = find(session, shard_id, lock=True)
    now = clock(session)
    if shard is None or not _is_free(session, shard, now, max_claims):
        return None
    jobs = {job.id: job.status}
    [taken] = _take(session, [shard], jobs, owner=owner, lease_s=lease_s, at=now)
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
    due = choose(session, room, served=served or {})
    wanted, count = pick(due, prefer, bounds, limit)
    if only is not None and wanted and wanted[0].work_key != only:
        return []
    rows, jobs = lock_free(session, [each.id for each in wanted], count)
    if not rows:
        return []
    return _take(session, rows, jobs, owner=owner, lease_s=lease_s, at=rows[0].now)


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
    return _take_back(session, lost, _has_expired, why, max_claims=max_claims)


def _is_past(now: datetime) -> ColumnElement[bool]:
    # a running shard without a lease has lost it; NULL is never less than `now`
    return or_(Shard.lease_until.is_(None), Shard.lease_until < now)


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


def _take_back(
    session: Session,
    condition: Any,
    is_lost: Callable[[Any, datetime], bool],
    why: str,
    *,
    max_claims: int,
) -> list[str]:
    """Requeue some running shards that meet a condition, which `is_lost` tells of a locked one."""
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
    poison = _is_poison(session, found, max_claims)
    job = lock_jobs(session, [found.job_id], shared=not poison, skip_locked=True)
    shard = lock_shard(session, found.id, skip_locked=True)
    now = clock(session)
    if not job or shard is None or shard.fence != found.fence or not is_lost(shard, now):
        return False
    end_attempts(session, [shard.id], "lost", at=now, error=why)
    # a worker that is late may have stored a checkpoint meanwhile
    if poison and _is_poison(session, shard, max_claims):
        reason = f"poison: its workers stopped reporting {max_claims} times"
        give_up(session, job[shard.job_id], shard, reason, at=now)
        return False
    requeue(session, shard, why, at=now)
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


def _is_free(session: Session, shard: Any, now: datetime, max_claims: int) -> bool:
    due: bool = shard.status == ShardState.QUEUED and shard.not_before <= now
    # poison is left to `reap`, which fails it
    return due or (_has_expired(shard, now) and not _is_poison(session, shard, max_claims))


def _has_expired(shard: Any, now: datetime) -> bool:
    expired = shard.lease_until is None or shard.lease_until < now
    return shard.status == ShardState.RUNNING and expired


def _is_poison(session: Session, shard: Any, max_claims: int) -> bool:
    """Whether a shard's claims, the current one included, were lost too often without progress."""
    if shard.claims - shard.failures - shard.releases < max_claims:
        return False
    lost = session.scalar(_LOST_SINCE_CHECKPOINT, {"shard": shard.id}) or 0
    return lost + 1 >= max_claims


def _take(
    session: Session,
    rows: Sequence[Any],
    jobs: Mapping[str, str],
    *,
    owner: str,
    lease_s: float,
    at: datetime,
) -> list[Claim]:
    """Give locked shards to `owner`; their locked jobs are in the states that `jobs` tells."""
    _end_lost(session, [row for row in rows if row.status == ShardState.RUNNING], at=at)
    until = at + timedelta(seconds=lease_s)
    taken = {"ids": [row.id for row in rows], "holder": owner, "at": at, "until": until}
    session.execute(_TAKE, taken)
    begun = sorted({row.job_id for row in rows if jobs[row.job_id] == JobState.QUEUED})
    move_jobs(session, begun, JobState.QUEUED, JobState.RUNNING, at=at, started_at=at)
    return [_claim_of(row, owner) for row in rows]


def _end_lost(session: Session, rows: Sequence[Any], *, at: datetime) -> None:
    """Record the ends of attempts whose leases have expired, at shards that are taken over."""
    lost, running = "its lease expired and was taken over", ShardState.RUNNING
    end_attempts(session, [row.id for row in rows], "lost", at=at, error=lost)
    reason = "took over an expired lease"
    record_transitions(
        session, [(row.job_id, row.id, running, running, reason) for row in rows], at=at
    )


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

_shard = SHARDS.c
_TAKE = (
    update(SHARDS)
    .where(_shard.id.in_(bindparam("ids", expanding=True)))
    .values(
        status=ShardState.RUNNING.value,
        waiting=False,
        fence=_shard.fence + 1,
        claims=_shard.claims + 1,
        owner=bindparam("holder"),
        started_at=bindparam("at"),
        lease_until=bindparam("until"),
        heartbeat_seq=0,
        # the samples that another worker has made are made again; a training resumes
        report=case((_shard.work_key.is_(None), _shard.report)),
    )
)
