"""Chains: jobs of which each waits for the one before it (`Job.after_id`).

A job that waits has no shards, and its spec is as it was asked for, but for its marks. Once the job
before it has succeeded, a scheduler gives it its pinned spec and its shards (`release`), in one
transaction. If the job before it failed or was cancelled, it is cancelled, and so are those that
wait for it.

Locks are taken down a chain, never up.
"""

import json
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import CTE, literal, select
from sqlalchemy.orm import Session, aliased, undefer

from db.columns import fresh_ids, new_id
from db.errors import Refused
from db.moves import lock_job, lock_jobs, move_job, move_jobs
from db.new_jobs import NewJob, hold_original, insert_piece, insert_shards, pieces, shard_rows
from db.progress import total
from db.session import clock
from db.states import FINAL, JobState
from db.tables import Job, Model, ModelVersion

MAX_LENGTH = 100  # jobs, from the first of a chain to its last
CANCELLED_AT_ONCE = 1000
SHOWN = 100  # jobs of one chain


class Ready(NamedTuple):
    """A job that waits for one that has ended."""

    id: str
    before: str
    state: str  # of the one before
    error: str | None

    @property
    def reason(self) -> str | None:
        """Why it can never run; None if it can."""
        if self.state == JobState.SUCCEEDED:
            return None
        return because(self.before, self.state, self.error)


@dataclass(frozen=True)
class Made:
    """What names mean to a job that waits: what the jobs before it used and made."""

    models: dict[str, tuple[Model, ModelVersion]] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)  # pinned references, the nearest last
    generated: str | None = None  # the nearest job that made samples


def because(before: str, state: str, error: str | None = None) -> str:
    """Why a job is cancelled: the one that it waits for, `before`, did not succeed."""
    return f"it was to run after job {before}, which {_ended(state)}" + (
        f": {error}" if error and state == JobState.FAILED else ""
    )


def ready(session: Session, *, after: str = "", limit: int = 100) -> list[Ready]:
    """Jobs that wait for one that has ended, by id; `after` is the previous page's last."""
    before = aliased(Job, name="the_one_before")  # here: threads cannot share one
    statement = (
        select(Job.id, before.id, before.status, before.error)
        .join(before, before.id == Job.after_id)
        .where(Job.status == JobState.WAITING, before.status.in_(FINAL), Job.id > after)
        .order_by(Job.id)
        .limit(limit)
    )
    return [Ready(*row) for row in session.execute(statement)]


def release(session: Session, job_id: str, new: NewJob) -> bool:
    """Queue a waiting job as `new`, whose spec is pinned, with its shards; False if it moved on."""
    job = lock_job(session, job_id)
    if job is None or job.status != JobState.WAITING:
        return False
    # its priority may have changed since `new` was made
    own = session.execute(select(Job.batch_id, Job.priority).where(Job.id == job_id)).one()
    new = new._replace(priority=own.priority)
    now = clock(session)
    rows = shard_rows(new, job_id, group_id=own.batch_id or job_id, ids=fresh_ids())
    insert_shards(session, list(rows), at=now)
    move_job(
        session,
        job,
        JobState.QUEUED,
        at=now,
        spec=json.loads(new.spec),
        spec_hash=new.spec_hash,
        samples=total(new.kind, new.ranges),
        wanted=new.wanted,
    )
    return True


def cancel_after(session: Session, job_id: str, reason: str) -> int:
    """Cancel the jobs that wait for an ended one, and those that wait for them; return how many.

    Of very many, some are left to the scheduler.
    """
    cancelled, ended = 0, [(job_id, reason)]
    while ended and cancelled < CANCELLED_AT_ONCE:
        before, why = ended.pop(0)
        waiting = select(Job.id).where(Job.after_id == before, Job.status == JobState.WAITING)
        ids = session.scalars(waiting.order_by(Job.id).limit(CANCELLED_AT_ONCE)).all()
        locked = lock_jobs(session, ids, shared=False)
        moved = [each.id for each in locked.values() if each.status == JobState.WAITING]
        at = clock(session)
        move_jobs(session, moved, JobState.WAITING, JobState.CANCELLED, at=at, reason=why)
        cancelled += len(moved)
        ended += [(each, because(each, JobState.CANCELLED)) for each in moved]
    return cancelled


def made_before(session: Session, job_id: str) -> Made:
    """What the jobs before this one made and used; of equal names, the nearest."""
    before = _before(job_id)
    versions = (
        select(Model, ModelVersion)
        .join(ModelVersion, ModelVersion.model_id == Model.id)
        .join(before, before.c.id == ModelVersion.job_id)
        .order_by(before.c.distance.desc())
    )
    used = (
        select(Job.spec["dataset"].as_string())
        .join(before, before.c.id == Job.id)
        .where(before.c.distance > 0)
        .order_by(before.c.distance.desc())
    )
    generated = (
        select(Job.id)
        .join(before, before.c.id == Job.id)
        .where(before.c.distance > 0, Job.kind == "generate")
        .order_by(before.c.distance)
    )
    return Made(
        {model.name: (model, version) for model, version in session.execute(versions)},
        [name for name in session.scalars(used) if name],
        session.scalar(generated.limit(1)),
    )


def whole(session: Session, job_id: str) -> list[Job]:
    """A job's chain with its retries, each job after the one that it waits for; the first 100."""
    before = _before(job_id)
    first = session.scalar(select(before.c.id).order_by(before.c.distance.desc()).limit(1))
    return _and_after(session, str(first), limit=SHOWN)


def followers(session: Session, job_id: str) -> list[Job]:
    """The jobs to run after this one, each after the one that it waits for, but for retries."""
    found = _and_after(session, job_id)[1:]
    return [job for job in found if job.retry_of is None]


def insert_retry(session: Session, old: Job, new: NewJob) -> Job:
    """Insert a retry of a job that failed or was cancelled, and of those that were to follow it.

    Raises `Gone` or `NotFound` if it has been removed; a follower that has been is left out.
    """
    hold_original(session, old.id)
    cancel_after(session, old.id, because(old.id, old.status, old.error))
    found = _and_after(session, old.id)[1:]
    there = lock_jobs(session, [job.id for job in found], shared=True)
    found = [job for job in found if job.id in there]
    replaced = {job.retry_of for job in found}  # a retry already follows
    ids = {old.id: new.id or new_id()}
    again = [new._replace(id=ids[old.id])]
    for job in found:
        if job.id not in replaced and job.after_id in ids:
            ids[job.id] = new_id()
            copy = copy_waiting(job)._replace(owner=new.owner)
            again.append(copy._replace(id=ids[job.id], after_id=ids[job.after_id]))
    for piece in pieces(again):
        insert_piece(session, piece)
    return session.get_one(Job, ids[old.id], options=[undefer(Job.spec)])


def refuse_retry(session: Session, job: Job) -> None:
    """Raise `Refused` if the job waited for one that did not succeed: that one is to be retried."""
    before = session.get(Job, job.after_id)
    if before is None:  # removed just now, as `job` is: inserting the retry tells it
        return
    if before.status in FINAL and before.status != JobState.SUCCEEDED:
        raise Refused(
            f"job {job.id} cannot begin, because job {before.id} before it {_ended(before.status)}",
            remedy=f"retry job {before.id}: what was to follow it is enqueued again too",
        )


def copy_waiting(job: Job) -> NewJob:
    """A retry of a job that never had shards: it waits as the job did."""
    return NewJob(
        job.kind,
        json.dumps(job.spec),
        job.spec_hash,
        job.model,
        (),
        job.priority,
        custom_id=job.custom_id,
        schedule_id=job.schedule_id,
        retry_of=job.id,
        prompts_sha256=job.prompts_sha256,
        after_id=job.after_id,
    )


def _ended(state: str) -> str:
    return "failed" if state == JobState.FAILED else "was cancelled"


def _before(job_id: str) -> CTE:
    """A job and those before it in its chain, by id and distance."""
    start = select(Job.id, Job.after_id, literal(0).label("distance")).where(Job.id == job_id)
    before = start.cte("before", recursive=True)
    step = select(Job.id, Job.after_id, before.c.distance + 1)
    return before.union_all(step.join(before, before.c.after_id == Job.id))


def _and_after(session: Session, job_id: str, *, limit: int | None = None) -> list[Job]:
    """A job and those after it, the nearest first."""
    start = select(Job.id, literal(0).label("distance")).where(Job.id == job_id)
    after = start.cte("after", recursive=True)
    step = select(Job.id, after.c.distance + 1).join(after, after.c.id == Job.after_id)
    after = after.union_all(step)
    statement = select(Job).join(after, after.c.id == Job.id).options(undefer(Job.spec))
    return list(session.scalars(statement.order_by(after.c.distance, Job.id).limit(limit)))
