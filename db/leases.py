"""Leases: workers claim shards (`db.renewals` renews, `db.reaping` takes back what is lost).

A claim carries a fence, a number that grows with each claim of its shard. Every later step names
it, and changes nothing if the shard has since been claimed again, cancelled or ended.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from sqlalchemy import bindparam, case, update
from sqlalchemy.orm import Session

from db.claims import Claim
from db.due import choose
from db.free_shards import OPEN_JOBS, find, lock_free
from db.heads import Due
from db.moves import end_attempts, lock_job, move_jobs, record_transitions
from db.reaping import MAX_CLAIMS, has_expired, is_poison
from db.session import clock
from db.states import JobState, ShardState
from db.tables import SHARDS

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


def _is_free(session: Session, shard: Any, now: datetime, max_claims: int) -> bool:
    due: bool = shard.status == ShardState.QUEUED and shard.not_before <= now
    # poison is left to `reap`, which fails it
    return due or (has_expired(shard, now) and not is_poison(session, shard, max_claims))


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
