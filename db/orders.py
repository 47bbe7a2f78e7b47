"""Orders of accepted samples: what was made so far, more shards, and the selection at the end."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.claims import Claim, record_artifacts
from db.columns import fresh_ids
from db.commits import NewArtifact
from db.moves import lock_job, move_job
from db.new_jobs import insert_shards
from db.session import clock
from db.states import JobState
from db.tables import Artifact, Job, Shard

VERDICTS = "verdicts"  # the kind of artifact that holds what was found of a shard's samples
SELECTION = "selection"  # and of the one that says which samples were accepted


class Order(NamedTuple):
    """An order whose shards have all succeeded."""

    job_id: str
    wanted: int
    made: int  # samples
    spec: dict[str, Any]


def open_orders(session: Session, job_ids: Collection[str]) -> list[Order]:
    """Those of these finalizing jobs that have rules and no selection yet."""
    columns = (Job.id, Job.wanted, Job.samples, Job.spec)
    chosen = (Job.id.in_(job_ids), Job.wanted.is_not(None), Job.status == JobState.FINALIZING)
    found = [Order(*row) for row in session.execute(select(*columns).where(*chosen))]
    return [each for each in found if selection(session, each.job_id) is None]


def verdicts(session: Session, job_id: str) -> list[Artifact]:
    """What was found of an order's samples, in the order of their numbers."""
    statement = (
        select(Artifact)
        .join(Shard, Shard.id == Artifact.shard_id)
        .where(Shard.job_id == job_id, Artifact.kind == VERDICTS)
    )
    return list(session.scalars(statement.order_by(Shard.idx)))


def selection(session: Session, job_id: str) -> Artifact | None:
    """The artifact that says which samples were accepted; None if there is none yet."""
    statement = select(Artifact).join(Shard, Shard.id == Artifact.shard_id)
    found = (Shard.job_id == job_id, Artifact.kind == SELECTION)
    return session.scalar(statement.where(*found))


def extend(session: Session, job_id: str, made: int, ranges: Sequence[tuple[int, int]]) -> bool:
    """Add shards to an order whose `made` samples are too few, and let it run again.

    Returns False if another process has moved it on meanwhile.
    """
    job = lock_job(session, job_id)
    if job is None or job.status != JobState.FINALIZING or job.samples != made:
        return False
    last = _last_shard(session, job_id)
    common = (job_id, last.group_id, last.urgency, last.work_key)
    numbered = enumerate(ranges, start=last.idx + 1)
    rows = [
        (row_id, idx, *part, *common)
        for row_id, (idx, part) in zip(fresh_ids(), numbered, strict=False)
    ]
    now = clock(session)
    insert_shards(session, rows, at=now)
    more = sum(stop - start for start, stop in ranges)
    session.execute(update(Job).where(Job.id == job_id).values(samples=made + more))
    reason = f"{more} more samples are needed"
    move_job(session, job, JobState.RUNNING, at=now, reason=reason)
    return True


def record_selection(session: Session, job_id: str, artifact: NewArtifact) -> None:
    """Record which samples of a finalizing order were accepted, once."""
    job = lock_job(session, job_id)
    if job is None or job.status != JobState.FINALIZING or selection(session, job_id) is not None:
        return
    last = _last_shard(session, job_id)
    place = Claim(
        *(last.id, job_id, last.fence, last.owner or "", last.idx, last.start, last.stop),
        *("generate", False, last.work_key, last.group_id),
    )
    record_artifacts(session, [(place, artifact)], at=clock(session))


def _last_shard(session: Session, job_id: str) -> Shard:
    own = select(Shard).where(Shard.job_id == job_id)
    return session.scalars(own.order_by(Shard.idx.desc()).limit(1)).one()
