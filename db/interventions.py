"""What a user changes about jobs that are under way: an early end, the priority, the note."""

from collections.abc import Collection
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import jobs
from db.checkpoints import checkpoints_of_line
from db.claims import Claim, hold
from db.errors import NotFound, Refused
from db.moves import lock_job, lock_jobs
from db.session import Now
from db.states import FINAL, JobState
from db.tables import Job, Shard

TRAININGS = frozenset({"train", "finetune"})
MAX_PRIORITY = 1_000_000
MAX_NOTE = 1000  # characters


class Answer(StrEnum):
    """The outcome of telling a training to end early and to keep its best weights."""

    ASKED = "asked"  # it ends within a moment, and succeeds with a version
    CANCELLED = "cancelled"  # it had nothing to keep
    ENDED = "ended"  # before


def refuse_to_keep(job_id: str, kind: str) -> None:
    """Raise `Refused` for a job of a kind that has no weights."""
    if kind not in TRAININGS:
        raise Refused(
            f"job {job_id} is of kind {kind}, and only a training has weights to keep",
            remedy="cancel it without --keep: samples that are finished stay in any case",
        )


def end_early(session: Session, job_id: str) -> Answer:
    """Tell a training to end now and to make a version of its best weights.

    The mark on its row outlives its worker: whoever claims the shard next goes on from its last
    checkpoint until it is as far as it was now, and ends then. One that has not begun is cancelled,
    with what waits for it. Raises `NotFound`, and `Refused` for a job of another kind.
    """
    job = lock_job(session, job_id)
    if job is None:
        raise NotFound(f"no job {job_id!r}")
    refuse_to_keep(job_id, job.kind)
    if job.status in FINAL:
        return Answer.ENDED
    began = job.status not in {JobState.WAITING, JobState.QUEUED}
    if not began and not checkpoints_of_line(session, job_id):
        jobs.cancel(session, job_id)
        return Answer.CANCELLED
    asked = update(Job).where(Job.id == job_id, Job.stop_asked_at.is_(None))
    values = {"stop_asked_at": Now(), "stop_after": _done(session, job_id)}
    session.execute(asked.values(values).execution_options(synchronize_session=False))
    jobs.log(session, job_id, "told to end early and to keep its best weights")
    return Answer.ASKED


def _done(session: Session, job_id: str) -> float:
    """How far a training is, by its worker's last report."""
    report = session.scalar(select(Shard.report).where(Shard.job_id == job_id))
    done = (report or {}).get("done")
    return float(done) if isinstance(done, int | float) else 0.0


def ending_early(session: Session, job_ids: Collection[str]) -> set[str]:
    """Those of the jobs that were told to end early."""
    asked = select(Job.id).where(Job.id.in_(job_ids), Job.stop_asked_at.is_not(None))
    return set(session.scalars(asked))


def cancel_unkept(session: Session, claim: Claim, reason: str) -> None:
    """Cancel a training that was told to end early before it had made a step.

    Only the holder of its shard knows that. Raises `Cancelled` or `LeaseLost`.
    """
    hold(session, claim, exclusive=True)
    jobs.cancel(session, claim.job_id, reason=reason)


def check_priority(priority: int) -> None:
    """Raise `Refused` for a priority out of bounds."""
    if abs(priority) > MAX_PRIORITY:
        raise Refused(f"priority {priority}: allowed are -{MAX_PRIORITY} to {MAX_PRIORITY}")


def prioritise(session: Session, job_ids: Collection[str], priority: int) -> list[str]:
    """Give those of the jobs that have not ended, and what waits for them, another priority.

    Their shards are chosen by it from now on; what runs is not interrupted. Returns the ids of the
    jobs that were changed.
    """
    locked = lock_jobs(session, job_ids, shared=False)
    changed = [job.id for job in locked.values() if job.status not in FINAL]
    session.execute(update(Job).where(Job.id.in_(changed)).values(priority=priority))
    # all of a job's shards, so that its urgency is one; the indexes of queued ones follow
    moved = update(Shard).where(Shard.job_id.in_(changed)).values(urgency=-priority)
    session.execute(moved.execution_options(synchronize_session=False))
    next_ones = select(Job.id).where(Job.after_id.in_(changed), Job.status == JobState.WAITING)
    waiting = session.scalars(next_ones).all()
    return changed + (prioritise(session, waiting, priority) if waiting else [])


def annotate(session: Session, job_id: str, note: str) -> None:
    """Set a job's note, or remove it if it is empty. Raises `Refused` if it is too long."""
    if len(note) > MAX_NOTE:
        raise Refused(
            f"a note of {len(note):,} characters; allowed are {MAX_NOTE:,}",
            remedy="shorten it, or note where the rest is",
        )
    session.execute(update(Job).where(Job.id == job_id).values(note=note.strip() or None))
