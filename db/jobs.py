"""Jobs: add, find, cancel and finish them; their journal and manifest."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, undefer

from db.batches import visible
from db.errors import NotFound, Refused
from db.journal import add_points, drop_points_after, log, log_lines, points, transitions
from db.lookup import by_prefix
from db.manifest import manifest
from db.moves import end_job, lock, move_job, settle_job
from db.new_jobs import NewJob, insert_job
from db.session import clock
from db.states import FINAL, JobState, ShardState
from db.tables import Job, Shard

__all__ = [
    "add",
    "add_points",
    "by_idempotency_key",
    "cancel",
    "collectable",
    "counts",
    "drop_points_after",
    "get",
    "listing",
    "log",
    "log_lines",
    "manifest",
    "mark_collected",
    "names_prompts",
    "next_to_finalize",
    "points",
    "settle",
    "shards_of",
    "succeed",
    "transitions",
    "unfinished",
]

VISIBLE = visible(Job.batch_id)
WITH_SPEC = undefer(Job.spec)  # lists and claims do without


def add(
    session: Session,
    *,
    spec: dict[str, Any],
    spec_hash: str,
    kind: str,
    model: str | None,
    ranges: Sequence[tuple[int, int]],
    priority: int = 0,
    **origin: str | None,
) -> Job:
    """Insert a job and one shard for each range, all queued. Commit, then ring the doorbell.

    `origin` may hold batch_id, custom_id, schedule_id, retry_of, idempotency_key and
    prompts_sha256. Raises `Refused` without a range, and `sqlalchemy.exc.IntegrityError` if the
    key is taken.
    """
    batch_id = origin.pop("batch_id", None)
    job = NewJob(kind, json.dumps(spec), spec_hash, model, ranges, priority, **origin)
    return insert_job(session, job, batch_id=batch_id)


def by_idempotency_key(session: Session, key: str) -> Job | None:
    """The job that was submitted under this key, if any, even if its batch is incomplete."""
    statement = select(Job).where(Job.idempotency_key == key).options(WITH_SPEC)
    found: Job | None = session.scalar(statement)
    return found


def unfinished(session: Session, *, limit: int = 1, **columns: str) -> list[Job]:
    """Jobs that have not ended and have these values in their `columns`, oldest first."""
    statement = select(Job).filter_by(**columns).where(Job.status.not_in(FINAL), VISIBLE)
    return list(session.scalars(statement.order_by(Job.id).limit(limit)))


def get(session: Session, id_or_prefix: str) -> Job:
    """The job with this id or unambiguous prefix, with its spec. Raises `NotFound` or `Refused`."""
    return by_prefix(session, Job, id_or_prefix, WITH_SPEC, noun="job", visible=VISIBLE)


def listing(  # noqa: PLR0913 - one a column that `job list` can filter by
    session: Session,
    *,
    status: str | None = None,
    kind: str | None = None,
    model: str | None = None,
    batch: str | None = None,
    schedule: str | None = None,
    since: datetime | None = None,
    limit: int = 50,
    before: str | None = None,
    with_spec: bool = False,
) -> list[Job]:
    """Jobs that match every filter, newest first; `before` is the previous page's last id."""
    if status is not None and status not in set(JobState):
        raise Refused.unknown("status", status, [state.value for state in JobState])
    wanted = {
        Job.status: status,
        Job.kind: kind,
        Job.model: model,
        Job.batch_id: batch,
        Job.schedule_id: schedule,
    }
    statement = select(Job).where(VISIBLE).order_by(Job.id.desc()).limit(limit)
    for column, value in wanted.items():
        if value is not None:
            statement = statement.where(column == value)
    if since is not None:
        statement = statement.where(Job.created_at >= since)
    if before is not None:
        statement = statement.where(Job.id < before)
    if with_spec:
        statement = statement.options(WITH_SPEC)
    return list(session.scalars(statement))


def counts(session: Session) -> dict[str, int]:
    """The number of jobs in each state."""
    rows = session.execute(select(Job.status, func.count()).where(VISIBLE).group_by(Job.status))
    return dict.fromkeys((str(state) for state in JobState), 0) | {row[0]: row[1] for row in rows}


def shards_of(session: Session, job_id: str) -> list[Shard]:
    """A job's shards, in the order of their ranges."""
    return list(session.scalars(select(Shard).where(Shard.job_id == job_id).order_by(Shard.idx)))


def cancel(session: Session, job_id: str, *, reason: str = "cancelled by the user") -> bool:
    """Cancel a job and its shards; False if it has already ended. Raises `NotFound`."""
    job = _locked(session, job_id)
    if job.status in FINAL:
        return False
    end_job(session, job, JobState.CANCELLED, reason=reason)
    return True


def next_to_finalize(session: Session, limit: int) -> list[Job]:
    """Jobs whose shards have all succeeded but whose manifest is not stored, oldest first."""
    unfinished = select(Shard.id).where(
        Shard.job_id == Job.id, Shard.status != ShardState.SUCCEEDED
    )
    ready = or_(
        Job.status == JobState.FINALIZING,
        and_(Job.status == JobState.RUNNING, ~unfinished.exists()),
    )
    return list(session.scalars(select(Job).where(ready).order_by(Job.id).limit(limit)))


def settle(session: Session, job_id: str) -> JobState:
    """Move a job to finalizing if all its shards have succeeded; return its state."""
    return settle_job(session, _locked(session, job_id))


def succeed(session: Session, job_id: str, manifest_key: str, manifest_sha256: str) -> bool:
    """End a finalizing job whose manifest is stored as succeeded; False if it has already ended."""
    job = _locked(session, job_id)
    if job.status in FINAL:
        return False
    also = {"manifest_key": manifest_key, "manifest_sha256": manifest_sha256}
    move_job(session, job, JobState.SUCCEEDED, at=clock(session), **also)
    return True


def collectable(session: Session, older_than_s: float, limit: int) -> list[Job]:
    """Jobs that ended more than `older_than_s` ago and still need collecting, oldest first."""
    ended_before = clock(session) - timedelta(seconds=older_than_s)
    statement = select(Job).where(
        Job.status.in_(FINAL), Job.finished_at < ended_before, Job.collected_at.is_(None)
    )
    return list(session.scalars(statement.order_by(Job.finished_at).limit(limit)))


def mark_collected(session: Session, job_id: str) -> None:
    """Record that a job's unreferenced objects were collected."""
    _locked(session, job_id).collected_at = clock(session)


def names_prompts(session: Session, sha256: str) -> bool:
    """Whether a job names the prompts with this digest."""
    named = select(Job.id).where(Job.prompts_sha256 == sha256).limit(1)
    return session.scalar(named) is not None


def _locked(session: Session, job_id: str) -> Job:
    job = lock(session, Job, job_id)
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    return job
