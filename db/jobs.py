"""Jobs: add, find, cancel and finish them; their journal and manifest."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, or_, select, text, update
from sqlalchemy.orm import Session, undefer

from db import chains
from db.batches import visible
from db.commits import NewManifest
from db.errors import NotFound
from db.job_lists import counts, listing, newest, select_jobs
from db.journal import (
    add_points,
    drop_points_after,
    inherit_points,
    last_points,
    log,
    log_lines,
    points,
    transitions,
)
from db.lookup import by_prefix
from db.manifest import manifest, manifest_to_be, manifests
from db.moves import (
    end_job,
    lock_job,
    lock_jobs,
    release_published,
    settle_job,
    succeed_jobs,
)
from db.new_jobs import NewJob, insert_job
from db.session import clock
from db.states import FINAL, JobState
from db.tables import JOBS, Job, Shard
from db.tombstones import not_hidden, refuse

__all__ = [
    "JobBrief",
    "add",
    "add_points",
    "as_they_are",
    "briefs",
    "by_idempotency_key",
    "cancel",
    "collectable",
    "complete",
    "counts",
    "drop_points_after",
    "fail",
    "get",
    "inherit_points",
    "last_points",
    "listing",
    "log",
    "log_lines",
    "manifest",
    "manifest_to_be",
    "manifests",
    "mark_collected",
    "names_prompts",
    "newest",
    "next_to_finalize",
    "points",
    "select_jobs",
    "settle",
    "shards_of",
    "succeed_many",
    "transitions",
    "unfinished",
]

STORED = visible(Job.batch_id)
VISIBLE = and_(STORED, not_hidden(Job.id))
AT_ONCE = 500  # ids in one statement
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
    work_key: int | None = None,
    **origin: str | None,
) -> Job:
    """Insert a job and one shard for each range, all queued. Commit, then ring the doorbell.

    Shards of equal `work_key` can run together. `origin` may hold batch_id, custom_id, schedule_id,
    retry_of, after_id, idempotency_key and prompts_sha256. Without a range, it waits for the job
    `after_id`. Raises `Refused` with neither, and `sqlalchemy.exc.IntegrityError` if the key is
    taken.
    """
    batch_id = origin.pop("batch_id", None)
    row = json.dumps(spec)
    new = NewJob(kind, row, spec_hash, model, ranges, priority, work_key, wanted=None, **origin)
    return insert_job(session, new, batch_id=batch_id)


def by_idempotency_key(session: Session, key: str) -> Job | None:
    """The job that was submitted under this key, if any, even if its batch is incomplete.

    Raises `Gone` if it was removed and its artifacts were kept.
    """
    statement = select(Job).where(Job.idempotency_key == key).options(WITH_SPEC)
    found: Job | None = session.scalar(statement)
    if found is not None:
        refuse(session, found.id)
    return found


def unfinished(session: Session, *, limit: int = 1, **columns: str) -> list[Job]:
    """Jobs that have not ended and have these values in their `columns`, oldest first."""
    statement = select(Job).filter_by(**columns).where(Job.status.not_in(FINAL), VISIBLE)
    return list(session.scalars(statement.order_by(Job.id).limit(limit)))


def get(session: Session, id_or_prefix: str, *, kept: bool = False) -> Job:
    """The job with this id or unambiguous prefix, with its spec.

    With `kept`, also one that was removed and whose artifacts were kept. Raises `NotFound`, `Gone`
    or `Refused`.
    """
    shown = STORED if kept else VISIBLE
    return by_prefix(session, Job, id_or_prefix, WITH_SPEC, noun="job", visible=shown)


def as_they_are(session: Session, ids: Sequence[str]) -> list[Job]:
    """The jobs with these ids, in this order; those that are no longer on record are left out."""
    found: dict[str, Job] = {}
    for first in range(0, len(ids), AT_ONCE):
        some = select(Job).where(Job.id.in_(ids[first : first + AT_ONCE]))
        found |= {job.id: job for job in session.scalars(some)}
    return [found[each] for each in ids if each in found]


class JobBrief(NamedTuple):
    """What a worker needs of a job."""

    id: str
    model: str | None
    custom_id: str | None
    retry_of: str | None
    spec_hash: str
    spec: dict[str, Any]
    owner: str | None = None  # None: an earlier Genmill did not record it
    stop_asked_at: datetime | None = None
    stop_after: float | None = None


def briefs(session: Session, ids: Collection[str]) -> dict[str, JobBrief]:
    """The jobs with these ids, as their workers need them."""
    return {row.id: JobBrief(*row) for row in session.execute(_BRIEFS, {"ids": list(ids)})}


def shards_of(session: Session, job_id: str) -> list[Shard]:
    """A job's shards, in the order of their ranges."""
    return list(session.scalars(select(Shard).where(Shard.job_id == job_id).order_by(Shard.idx)))


def cancel(session: Session, job_id: str, *, reason: str = "cancelled by the user") -> bool:
    """Cancel a job, its shards and what waits for it; False if it has ended. Raises `NotFound`."""
    return _end(session, job_id, JobState.CANCELLED, reason)


def fail(session: Session, job_id: str, *, reason: str) -> bool:
    """Fail a job that cannot be finished, and cancel what waits for it; False if it has ended.

    Raises `NotFound`.
    """
    return _end(session, job_id, JobState.FAILED, reason)


def next_to_finalize(session: Session, limit: int, *, without: Collection[str] = ()) -> list[str]:
    """Jobs whose shards have all succeeded but whose manifest is not stored, oldest first."""
    ready = or_(
        Job.status == JobState.FINALIZING, and_(Job.status == JobState.RUNNING, _ALL_SUCCEEDED)
    )
    statement = select(Job.id).where(ready, *_others(without))
    return list(session.scalars(statement.order_by(Job.id).limit(limit)))


def complete(session: Session, job_ids: Collection[str]) -> list[str]:
    """Those running jobs whose shards have all succeeded: `settle` them. Locks nothing."""
    return list(session.scalars(_COMPLETE, {"ids": list(job_ids)}))


def settle(session: Session, job_id: str) -> JobState:
    """Move a job to finalizing if all its shards have succeeded; return its state."""
    return settle_job(session, _locked(session, job_id))


def succeed_many(session: Session, manifests: Mapping[str, NewManifest]) -> list[str]:
    """End finalizing jobs whose manifests are stored; return which.

    Those that have ended already, or are not finalizing, are left as they are.
    """
    locked = lock_jobs(session, manifests, shared=False)
    ready = [job.id for job in locked.values() if job.status == JobState.FINALIZING]
    succeed_jobs(session, {job_id: manifests[job_id] for job_id in ready}, at=clock(session))
    if publishing := [job_id for job_id in ready if locked[job_id].kind == "publish"]:
        release_published(session, publishing)
    return ready


def collectable(
    session: Session, older_than_s: float, limit: int, *, without: Collection[str] = ()
) -> list[str]:
    """The ids of jobs that ended more than `older_than_s` ago and still need collecting,
    oldest first.
    """
    ended_before = clock(session) - timedelta(seconds=older_than_s)
    # not by state: an index holds the finished jobs that are not collected, and few others
    due = (Job.finished_at < ended_before, Job.collected_at.is_(None), *_others(without))
    return list(session.scalars(select(Job.id).where(*due).order_by(Job.finished_at).limit(limit)))


def mark_collected(session: Session, job_id: str) -> None:
    """Record that a job's unreferenced objects were collected, unless it was removed since."""
    if lock_job(session, job_id) is not None:
        session.execute(update(Job).where(Job.id == job_id).values(collected_at=clock(session)))


def names_prompts(session: Session, sha256: str) -> bool:
    """Whether a job names the prompts with this digest."""
    named = select(Job.id).where(Job.prompts_sha256 == sha256).limit(1)
    return session.scalar(named) is not None


def _others(without: Collection[str]) -> list[ColumnElement[bool]]:
    return [Job.id.not_in(without)] if without else []


def _end(session: Session, job_id: str, state: JobState, reason: str) -> bool:
    job = _locked(session, job_id)
    if job.status in FINAL:
        return False
    end_job(session, job, state, reason=reason)
    chains.cancel_after(session, job_id, chains.because(job_id, state, reason))
    return True


def _locked(session: Session, job_id: str) -> Any:
    job = lock_job(session, job_id)
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    return job


# Its open shards are looked for where they are few; the last look is for the rest. Backwards among
# the fresh ones: those at the end are the last to be claimed.
_ALL_SUCCEEDED: ColumnElement[bool] = text("""
    coalesce(
        (SELECT 1 FROM shards WHERE status = 'queued' AND fence = 0 AND urgency = -jobs.priority
            AND group_id = coalesce(jobs.batch_id, jobs.id) AND job_id = jobs.id
            ORDER BY idx DESC LIMIT 1),
        (SELECT 1 FROM shards WHERE status = 'running'
            AND group_id = coalesce(jobs.batch_id, jobs.id) AND job_id = jobs.id LIMIT 1),
        (SELECT 1 FROM shards WHERE job_id = jobs.id AND status <> 'succeeded' LIMIT 1)
    ) IS NULL
""")  # type: ignore[assignment] # a condition

# made once, because they run with every claim and commit
_job = JOBS.c
_AMONG = _job.id.in_(bindparam("ids", expanding=True))
_BRIEFS = select(*(_job[name] for name in JobBrief._fields)).where(_AMONG)
_COMPLETE = (
    select(_job.id)
    .where(_AMONG, _job.status == JobState.RUNNING.value, _ALL_SUCCEEDED)
    .order_by(_job.id)
)
