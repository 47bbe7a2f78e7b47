"""What finished jobs took: the facts that estimates of others are made from."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, and_, select
from sqlalchemy.orm import Session

from db.job_lists import listing
from db.states import JobState
from db.tables import Artifact, DatasetVersion, Job, Model, ModelVersion, Shard

LIMIT = 20  # jobs of a kind that are looked at
LATEST = 5  # whose times are told as they are
SHARDS = 500  # of a job; more would tell nothing else
# of a shard
_TAKEN = (Shard.work_key, Shard.start, Shard.stop, Shard.owner, Shard.started_at, Shard.ended_at)

Span = tuple[str, datetime, datetime]  # a worker, and from when to when it held a shard


class PastGeneration(NamedTuple):
    """What a generate job took, or its first shards if it has many.

    `seconds` are of workers' time, None where shards of other jobs shared it; `size_bytes` is None
    where artifacts have been removed.
    """

    job_id: str
    work_key: int | None
    micro_batch: int
    samples: int
    seconds: float | None
    size_bytes: int | None


class PastTraining(NamedTuple):
    """What a training took; `seconds` from its start to its end, None where it was interrupted."""

    job_id: str
    family: str
    dataset_id: str | None
    data_bytes: int  # of the dataset version; 0 if that is not known
    params: dict[str, Any]
    tuned: bool  # from a parent version
    metrics: dict[str, Any]
    seconds: float | None


def generations(session: Session, model: str) -> list[PastGeneration]:
    """A model's latest succeeded generate jobs, newest first."""
    done = JobState.SUCCEEDED
    found = listing(session, limit=LIMIT, model=model, status=done, kind="generate", with_spec=True)
    past = [_generation(session, job) for job in found]
    return [each for each in past if each.samples]


def seconds(session: Session, kind: str, model: str | None = None) -> list[float]:
    """From start to end of the latest succeeded jobs of a kind, of one model or of all."""
    done = JobState.SUCCEEDED
    found = listing(session, limit=LATEST, model=model, status=done, kind=kind)
    return [
        (job.finished_at - job.started_at).total_seconds()
        for job in found
        if job.started_at and job.finished_at
    ]


def recent_models(session: Session, limit: int) -> list[str]:
    """The models of the latest generate jobs that have succeeded."""
    found = listing(session, limit=5 * LIMIT, status=JobState.SUCCEEDED, kind="generate")
    return [name for name in dict.fromkeys(job.model for job in found) if name][:limit]


def trainings(session: Session, family: str | None = None) -> list[PastTraining]:
    """The latest succeeded trainings of a family, or of all, newest first."""
    statement = (
        select(ModelVersion, Model.family, DatasetVersion, Job, Shard.claims)
        .join(Model, Model.id == ModelVersion.model_id)
        .join(Job, Job.id == ModelVersion.job_id)
        .join(Shard, Shard.job_id == Job.id)
        .outerjoin(DatasetVersion, DatasetVersion.id == ModelVersion.dataset_version_id)
        .where(Job.status == JobState.SUCCEEDED)
        .order_by(ModelVersion.id.desc())
        .limit(LIMIT)
    )
    if family is not None:
        statement = statement.where(Model.family == family)
    return [_training(*row) for row in session.execute(statement)]


def _generation(session: Session, job: Job) -> PastGeneration:
    made = and_(Artifact.shard_id == Shard.id, Artifact.kind == "samples")
    statement = (
        select(*_TAKEN, Artifact.size, Artifact.removed_at)
        .outerjoin(Artifact, made)
        .where(Shard.job_id == job.id)
        .order_by(Shard.idx)
        .limit(SHARDS)
    )
    rows = session.execute(statement).all()
    there = all(row.size is not None and row.removed_at is None for row in rows)
    # jobs of a batch share forward passes; samples of an order are judged too
    shared = job.batch_id is not None or job.wanted is not None
    return PastGeneration(
        job.id,
        rows[0].work_key if rows else None,
        int((job.spec.get("params") or {}).get("micro_batch") or 1),
        sum(row.stop - row.start for row in rows),
        None if shared else _busy_s(rows),
        sum(row.size for row in rows) if there else None,
    )


def _busy_s(shards: Iterable[Row[*tuple[Any, ...]]]) -> float | None:
    """Seconds of workers' time, in which each may have held several shards at once."""
    spans: list[Span] = []
    for shard in shards:
        if shard.owner is None or shard.started_at is None or shard.ended_at is None:
            return None  # an earlier Genmill did not record it
        spans.append((shard.owner, shard.started_at, shard.ended_at))
    busy_s, until = 0.0, dict[str, datetime]()
    for owner, began, ended in sorted(spans, key=lambda span: span[1]):
        free_at = max(began, until.get(owner, began))
        busy_s += max(0.0, (ended - free_at).total_seconds())
        until[owner] = max(ended, free_at)
    return busy_s


def _training(
    version: ModelVersion, family: str, data: DatasetVersion | None, job: Job, claims: int
) -> PastTraining:
    seconds = None
    if claims == 1 and job.started_at is not None and job.finished_at is not None:
        seconds = (job.finished_at - job.started_at).total_seconds()
    return PastTraining(
        job.id,
        family,
        data.dataset_id if data else None,
        int(data.summary.get("size_bytes") or 0) if data else 0,
        version.params,
        version.parent_id is not None,
        version.metrics,
        seconds,
    )
