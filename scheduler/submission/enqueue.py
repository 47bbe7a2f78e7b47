"""Enqueueing: a job and its shards are committed as rows, then the doorbell rings.

The queued rows are the outbox: while the broker is down, jobs wait safely in the database.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import artifacts, jobs
from db.errors import Refused, Unreachable
from db.states import FINAL, JobState, ShardState
from db.tables import Job
from scheduler.submission.idempotency import refuse_different
from scheduler.submission.pinning import pin
from worker.broker.doorbell import ring_due
from worker.services import Services
from worker.services.pinned import Pinned, PinnedGeneration, PinnedTraining
from worker.services.prompts import load_spec, row_of, store_prompts
from worker.specs import Spec, parse_key

log = logging.getLogger(__name__)

UNKNOWN_RATE = 50.0  # samples per second, for a version whose speed was never measured
MAX_SHARDS = 100_000
MAX_PRIORITY = 1_000_000


class Columns(TypedDict, total=False):
    """The columns of a job's row that do not follow from its spec."""

    priority: int
    idempotency_key: str | None  # the same key returns the same job
    custom_id: str | None
    batch_id: str | None
    schedule_id: str | None
    retry_of: str | None


@dataclass(frozen=True)
class Request:
    """A job that has passed every check and can be stored."""

    asked: Spec  # as submitted, before names were pinned
    pinned: Pinned
    ranges: Sequence[tuple[int, int]]  # of samples, one per shard
    columns: Columns

    def with_columns(self, **columns: Unpack[Columns]) -> "Request":
        """A copy with these `columns` replaced."""
        return replace(self, columns={**self.columns, **columns})


@dataclass(frozen=True)
class Plan:
    """What a job would be: its pinned spec, number of shards and estimated cost."""

    spec: dict[str, Any]
    shards: int
    seconds: float  # of one worker's time
    bytes: int | None  # of samples; None without an earlier job to go by


def enqueue(
    services: Services,
    spec: Spec,
    *,
    shard_size: int | None = None,
    ranges: Sequence[tuple[int, int]] | None = None,
    **columns: Unpack[Columns],
) -> Job:
    """Store a job and ring for it. Raises `Refused` or `NotFound` before anything is stored.

    A shard gets `shard_size` samples, by default as many as a worker makes in the setting
    `shard_s`; `ranges` states the shards' samples explicitly.
    """
    key = columns.get("idempotency_key")
    job = _job_of_key(services, key, spec)
    if job is None:
        request = prepare(services, spec, shard_size=shard_size, ranges=ranges, **columns)
        try:
            store_prompts(services.store, request.pinned)
            job = services.database.transact(lambda session: insert(session, request))
        except IntegrityError:  # another command has just used the same key
            job = _job_of_key(services, key, spec)
            if job is None:
                raise
    ring_or_warn(services)
    return job


def prepare(
    services: Services,
    spec: Spec,
    *,
    shard_size: int | None = None,
    ranges: Sequence[tuple[int, int]] | None = None,
    **columns: Unpack[Columns],
) -> Request:
    """Check and pin a spec and cut it into shards; stores nothing. Arguments as in `enqueue`."""
    priority = columns.get("priority", 0)
    if abs(priority) > MAX_PRIORITY:
        raise Refused(f"priority {priority}: allowed are -{MAX_PRIORITY} to {MAX_PRIORITY}")
    with services.database.read() as session:
        pinned = pin(services, session, spec)
    if ranges is None:
        ranges = _cut_into_shards(pinned, services.settings.shard_s, shard_size)
    return Request(spec, pinned, ranges, columns)


def insert(session: Session, request: Request) -> Job:
    """Insert a job and its shards; the caller commits, then rings (`ring_or_warn`)."""
    pinned = request.pinned
    return jobs.add(
        session,
        **row_of(pinned),
        spec_hash=pinned.sha256,
        kind=pinned.spec.kind,
        model=pinned.model,
        ranges=request.ranges,
        work_key=pinned.work_key,
        **request.columns,
    )


def estimate(services: Services, request: Request) -> Plan:
    """Estimate what a prepared job will cost."""
    pinned, shards = request.pinned, len(request.ranges)
    if isinstance(pinned, PinnedTraining):
        # the time of a budget in steps depends on the machine, which is not known yet
        seconds = pinned.spec.max_seconds or pinned.family.default_seconds
        return Plan(pinned.data, shards, seconds, None)
    count, size = pinned.spec.count, _sample_bytes(services, pinned.model)
    size_bytes = None if size is None else round(count * size)
    return Plan(pinned.data, shards, count / _samples_per_second(pinned), size_bytes)


def retry(services: Services, job: Job) -> Job:
    """Enqueue a new job, linked to `job`, for the shards that failed or were cancelled."""
    if job.status not in FINAL or job.status == JobState.SUCCEEDED:
        raise Refused(
            f"job {job.id} is {job.status}: only failed and cancelled jobs can be retried"
        )
    with services.database.read() as session:
        shards = jobs.shards_of(session, job.id)
    ranges = [(s.start, s.stop) for s in shards if s.status != ShardState.SUCCEEDED]
    if not ranges:
        raise Refused(f"job {job.id} has nothing to retry: every shard succeeded")
    return enqueue(
        services,
        load_spec(services.store, job.spec),
        priority=job.priority,
        custom_id=job.custom_id,
        retry_of=job.id,
        ranges=ranges,
    )


def ring_or_warn(services: Services) -> None:
    """Ring for what is due; if the broker is down, log a warning: a scheduler rings later."""
    try:
        ring_due(services)
    except Unreachable as error:
        log.warning("stored, but it waits for the broker: %s", error)


def _job_of_key(services: Services, key: str | None, asked: Spec) -> Job | None:
    """The job that was submitted under `key`. Raises `Refused` if it is for another request."""
    if key is None:
        return None
    with services.database.read() as session:
        job = jobs.by_idempotency_key(session, parse_key("idempotency key", key))
        if job is not None:
            refuse_different(session, key, asked, job)
    return job


def _cut_into_shards(pinned: Pinned, shard_s: float, size: int | None) -> list[tuple[int, int]]:
    """Cut a generate job into shards; any other job is one shard.

    By default, a shard has as many whole micro-batches as take about `shard_s`.
    """
    if isinstance(pinned, PinnedTraining):
        return [(0, 1)]
    count, micro_batch = pinned.spec.count, pinned.params.micro_batch
    if not size:
        wanted = max(_samples_per_second(pinned) * shard_s, count / MAX_SHARDS)
        size = math.ceil(wanted / micro_batch) * micro_batch
    if size < 1 or count > size * MAX_SHARDS:
        least = math.ceil(count / MAX_SHARDS)
        raise Refused(f"shard size {size}: {count} samples need at least {least} per shard")
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _samples_per_second(pinned: PinnedGeneration) -> float:
    # measured at the end of training
    return float(pinned.version.metrics.get("samples_per_second") or UNKNOWN_RATE)


def _sample_bytes(services: Services, model: str) -> float | None:
    """Mean size of a sample in the model's last succeeded generate job."""
    with services.database.read() as session:
        found = jobs.listing(
            session, status=JobState.SUCCEEDED, kind="generate", model=model, limit=1
        )
        if not found:
            return None
        stored = artifacts.of_job(session, found[0].id, kind="samples")
        shards = jobs.shards_of(session, found[0].id)
    # a job that retries or reproduces another makes only some of its spec's samples
    made = sum(shard.stop - shard.start for shard in shards)
    return sum(artifact.size for artifact in stored) / made
