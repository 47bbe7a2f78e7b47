"""A job's progress, summed when it is read: shards report, and nobody rewrites the job's row.

A training job shows its worker's last report. A generate or publish job counts the samples of its
shards: all of those that succeeded, and what each running one has done so far.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.orm import Session

from db.session import clock
from db.states import JobState, ShardState
from db.tables import Job, Shard

Progress = dict[str, Any]

# a shard that was given back and is tried again after a pause, and what the last attempt met
_PUT_OFF = and_(Shard.status == ShardState.QUEUED, Shard.waiting)
_WAITS_FOR = case((_PUT_OFF, Shard.last_error))


def of(session: Session, jobs: Sequence[Job]) -> dict[str, Progress]:
    """By job id: `done`, `total` and `unit`, and `eta_s` and `note` where they are known.

    A training that has not begun has none of them. While a job runs, `stages` are those under way,
    each with its `name` and, where it has parts, with `done`, `total` and `unit`. `warnings` are
    about what a training made. `waits_for` is what a shard met that is tried again after
    a pause.
    """
    counted = [job.id for job in jobs if job.samples is not None and _is_part_done(job)]
    sums = _sums(session, counted)
    reports = _reports(session, [job.id for job in jobs if job.samples is None])
    now = clock(session) if any(job.status == JobState.RUNNING for job in jobs) else None
    return {
        job.id: _as_reported(job, reports.get(job.id, {}))
        if job.samples is None
        else _of_samples(job, sums.get(job.id), now)
        for job in jobs
    }


def _as_reported(job: Job, report: Progress) -> Progress:
    """A worker's last report; once the job has ended, nothing is under way."""
    running = job.status == JobState.RUNNING
    return {key: value for key, value in report.items() if running or key != "stages"}


def _is_part_done(job: Job) -> bool:
    """Whether its shards must be asked: it has begun, and not all of its samples are made."""
    complete = job.status in {JobState.FINALIZING, JobState.SUCCEEDED}
    return job.started_at is not None and not complete


def _sums(session: Session, ids: Sequence[str]) -> dict[str, Any]:
    if not ids:
        return {}
    running = Shard.status == ShardState.RUNNING
    made = case((Shard.status == ShardState.SUCCEEDED, Shard.stop - Shard.start), else_=0)
    so_far = case((running, Shard.report["done"].as_float()), else_=0.0)
    note = case((running, Shard.report["note"].as_string()))
    stage = case((running, Shard.report["stages", 0, "name"].as_string()))
    statement = (
        select(
            Shard.job_id,
            func.coalesce(func.sum(made), 0).label("committed"),
            func.coalesce(func.sum(so_far), 0.0).label("running"),
            func.max(note).label("note"),
            func.max(stage).label("stage"),
            func.max(_WAITS_FOR).label("waits_for"),
        )
        .where(Shard.job_id.in_(ids))
        .group_by(Shard.job_id)
    )
    return {row.job_id: row for row in session.execute(statement)}


def _reports(session: Session, ids: Sequence[str]) -> dict[str, Progress]:
    if not ids:
        return {}
    known = and_(Shard.job_id.in_(ids), or_(Shard.report.is_not(None), _PUT_OFF))
    columns = (Shard.job_id, Shard.report, _WAITS_FOR.label("waits_for"))
    rows = session.execute(select(*columns).where(known).order_by(Shard.idx))
    return {row.job_id: (row.report or {}) | _waiting(row) for row in rows}


def _waiting(row: Any) -> Progress:
    return {"waits_for": row.waits_for} if row.waits_for else {}


def _of_samples(job: Job, sums: Any | None, now: datetime | None) -> Progress:
    total, unit = job.samples or 0, "items" if job.kind == "publish" else "samples"
    if sums is None:
        complete = job.status in {JobState.FINALIZING, JobState.SUCCEEDED}
        return {"done": total if complete else 0, "total": total, "unit": unit}
    done = min(int(sums.committed) + sums.running, total)
    found: Progress = {"done": _whole(done), "total": total, "unit": unit} | _waiting(sums)
    if sums.note:
        found["note"] = sums.note
    if sums.stage:
        found["stages"] = [{"name": sums.stage}]
    if done and now and job.started_at and job.status == JobState.RUNNING:
        elapsed_s = (now - job.started_at).total_seconds()
        found["eta_s"] = round(elapsed_s * (total - done) / done, 1)
    return found


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def total(kind: str, ranges: Sequence[tuple[int, int]]) -> int | None:
    """The samples that a job of these ranges makes, or the items that it publishes.

    None for any other job, and without ranges.
    """
    counts = kind in {"generate", "publish"} and ranges
    return sum(stop - start for start, stop in ranges) if counts else None
