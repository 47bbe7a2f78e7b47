"""Shards: claim, renew, commit, fail, release, reap. The lease protocol.

A claim carries a fence, a number that grows with each claim of its shard. Every later step names
it, and changes nothing if the shard has since been claimed again, cancelled or ended.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from db import progress
from db.checkpoints import add_checkpoint, latest_checkpoint, mark_bad
from db.claims import Claim, check_complete, hold, record_artifact
from db.commits import NewArtifact, NewIndex
from db.due import reset_dispatched, take_due
from db.moves import (
    end_attempt,
    end_job,
    lock,
    move_job,
    move_shard,
    settle_job,
)
from db.session import clock
from db.states import JobState, ShardState
from db.tables import Attempt, Checkpoint, Job, Shard

__all__ = [
    "Claim",
    "NewArtifact",
    "NewIndex",
    "add_checkpoint",
    "claim",
    "commit",
    "fail",
    "latest_checkpoint",
    "mark_bad",
    "outcome",
    "put_artifact",
    "reap",
    "release",
    "renew",
    "reset_dispatched",
    "take_due",
]

MAX_CLAIMS = 8
REAPED_AT_ONCE = 100


def claim(
    session: Session, shard_id: str, *, owner: str, lease_s: float, max_claims: int = MAX_CLAIMS
) -> Claim | None:
    """Claim a queued shard that is due, or one whose lease has expired, for worker boot `owner`.

    The attempt is recorded here, before any work. Returns None if another worker has the shard, if
    it has ended or is unknown, or if it was lost `max_claims` times: there is nothing to do then.
    """
    found = session.get(Shard, shard_id)
    job = lock(session, Job, found.job_id) if found else None
    shard = lock(session, Shard, shard_id) if found else None
    if job is None or shard is None or job.status not in {JobState.QUEUED, JobState.RUNNING}:
        return None
    now = clock(session)
    due = shard.status == ShardState.QUEUED and shard.not_before <= now
    # a shard that was lost `max_claims` times is left to `reap`, which fails it
    abandoned = _has_expired(shard, now) and _times_lost(shard) < max_claims
    if not (due or abandoned):
        return None
    _take(session, shard, owner=owner, until=now + timedelta(seconds=lease_s), at=now)
    if job.status == JobState.QUEUED:
        move_job(session, job, JobState.RUNNING, at=now, started_at=now)
    return Claim(shard.id, job.id, shard.fence, owner, shard.idx, shard.start, shard.stop)


def renew(
    session: Session,
    claim: Claim,
    *,
    lease_s: float,
    seq: int,
    progress: dict[str, Any] | None = None,
) -> None:
    """Extend the lease to `lease_s` from now and record the worker's counter and progress report.

    Raises `Cancelled` or `LeaseLost`: stop, and commit nothing.
    """
    job, shard = hold(session, claim)
    now = clock(session)
    shard.lease_until = now + timedelta(seconds=lease_s)
    shard.heartbeat_seq = seq
    if progress is not None:
        _report(job, shard, progress, now=now)


def commit(
    session: Session,
    claim: Claim,
    artifacts: Sequence[NewArtifact],
    *,
    report: dict[str, Any] | None = None,
) -> None:
    """Record what the shard made and end it as succeeded; the last shard moves its job on.

    The objects must be in the store already; `report` is the worker's last progress report.
    Raises `Cancelled` or `LeaseLost`, and then nothing was recorded. After an error at the end of
    the transaction, `outcome` tells whether it was committed.
    """
    job, shard = hold(session, claim)
    check_complete(job, claim, artifacts)
    now = clock(session)
    for artifact in artifacts:
        record_artifact(session, claim, artifact, at=now)
    # a shard that succeeded never resumes, so its checkpoints become garbage
    session.execute(delete(Checkpoint).where(Checkpoint.shard_id == shard.id))
    end_attempt(session, shard, "succeeded", at=now)
    move_shard(session, shard, ShardState.SUCCEEDED, at=now)
    if report is not None:
        _report(job, shard, report, now=now)
    job.progress = progress.after_commit(job.progress, shard.idx, shard.stop - shard.start)
    session.flush()
    settle_job(session, job)


def outcome(session: Session, claim: Claim) -> str | None:
    """How the claim's attempt ended; None while it has not."""
    attempt = session.get(Attempt, (claim.shard_id, claim.fence), populate_existing=True)
    return attempt.outcome if attempt else None


def put_artifact(session: Session, claim: Claim, artifact: NewArtifact) -> None:
    """Record a preview or report while the shard runs, replacing the last one of that name."""
    hold(session, claim)
    record_artifact(session, claim, artifact, at=clock(session))


def fail(
    session: Session,
    claim: Claim,
    error: str,
    *,
    final: bool,
    max_failures: int,
    backoff_s: float,
) -> ShardState:
    """Count a failure of the work itself; return the shard's new state, queued or failed.

    It fails, and its job with it, if `final` or at the `max_failures`-th failure. Otherwise it is
    due after `backoff_s` * 2**(n-1) for the n-th failure. Raises `Cancelled` or `LeaseLost`.
    """
    job, shard = hold(session, claim)
    now = clock(session)
    failures = shard.failures + 1
    end_attempt(session, shard, "failed", at=now, error=error)
    if final or failures >= max_failures:
        _give_up(session, job, shard, error, at=now, failures=failures)
        return ShardState.FAILED
    pause = timedelta(seconds=backoff_s * 2 ** (failures - 1))
    _requeue(session, job, shard, error, at=now, not_before=now + pause, failures=failures)
    return ShardState.QUEUED


def release(session: Session, claim: Claim, reason: str, *, backoff_s: float = 0) -> None:
    """Requeue a shard without counting a failure, as after a drain or an unreachable service.

    Raises `Cancelled` or `LeaseLost`.
    """
    job, shard = hold(session, claim)
    now = clock(session)
    end_attempt(session, shard, "released", at=now, error=reason)
    due = now + timedelta(seconds=backoff_s)
    _requeue(session, job, shard, reason, at=now, not_before=due, releases=shard.releases + 1)


def reap(session: Session, *, max_claims: int = MAX_CLAIMS) -> list[str]:
    """Requeue shards whose lease has expired; return their ids.

    A shard whose lease expired `max_claims` times is poison: it fails, and its job with it.
    """
    now = clock(session)
    expired = select(Shard.id, Shard.job_id).where(
        Shard.status == ShardState.RUNNING,
        # a running shard without a lease has lost it; NULL is never less than `now`
        or_(Shard.lease_until.is_(None), Shard.lease_until < now),
    )
    # in the order of jobs, so that two reapers cannot deadlock
    found = session.execute(expired.order_by(Shard.job_id, Shard.idx).limit(REAPED_AT_ONCE)).all()
    return [
        shard_id
        for shard_id, job_id in found
        if _reap_one(session, shard_id, job_id, max_claims=max_claims)
    ]


def _reap_one(session: Session, shard_id: str, job_id: str, *, max_claims: int) -> bool:
    job, shard = lock(session, Job, job_id), lock(session, Shard, shard_id)
    now = clock(session)
    if job is None or shard is None or not _has_expired(shard, now):
        return False
    lost = "the lease expired: its worker stopped reporting"
    end_attempt(session, shard, "lost", at=now, error=lost)
    if _times_lost(shard) >= max_claims:
        poison = f"poison: its workers stopped reporting {_times_lost(shard)} times"
        _give_up(session, job, shard, poison, at=now)
        return False
    _requeue(session, job, shard, lost, at=now, not_before=now)
    return True


def _has_expired(shard: Shard, now: datetime) -> bool:
    expired = shard.lease_until is None or shard.lease_until < now
    return shard.status == ShardState.RUNNING and expired


def _times_lost(shard: Shard) -> int:
    """Claims that ended in neither a failure nor a release, the current one included."""
    return shard.claims - shard.failures - shard.releases


def _take(session: Session, shard: Shard, *, owner: str, until: datetime, at: datetime) -> None:
    taken_over = shard.status == ShardState.RUNNING
    if taken_over:
        end_attempt(session, shard, "lost", at=at, error="its lease expired and was taken over")
    move_shard(
        session,
        shard,
        ShardState.RUNNING,
        at=at,
        reason="took over an expired lease" if taken_over else None,
        fence=shard.fence + 1,
        claims=shard.claims + 1,
        owner=owner,
        lease_until=until,
        heartbeat_seq=0,
    )
    session.add(Attempt(shard_id=shard.id, fence=shard.fence, worker=owner, started_at=at))
    session.flush()


def _requeue(
    session: Session,
    job: Job,
    shard: Shard,
    reason: str,
    *,
    at: datetime,
    not_before: datetime,
    **counted: int,
) -> None:
    job.progress = progress.after_release(job.progress, shard.idx)
    also = {"not_before": not_before, "dispatched_at": None, "last_error": reason} | counted
    move_shard(session, shard, ShardState.QUEUED, at=at, reason=reason, **also)


def _give_up(
    session: Session, job: Job, shard: Shard, error: str, *, at: datetime, **counted: int
) -> None:
    also = {"last_error": error} | counted
    move_shard(session, shard, ShardState.FAILED, at=at, reason=error, **also)
    samples = f"samples {shard.start} to {shard.stop - 1}: "
    which = samples if job.kind == "generate" else ""
    end_job(session, job, JobState.FAILED, reason=which + error)


def _report(job: Job, shard: Shard, report: dict[str, Any], *, now: datetime) -> None:
    elapsed_s = (now - (job.started_at or now)).total_seconds()
    job.progress = progress.after_report(job.progress, shard.idx, report, elapsed_s=elapsed_s)
