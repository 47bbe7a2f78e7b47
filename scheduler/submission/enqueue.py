"""Enqueueing: a job and its shards are committed as rows, then the doorbell rings.

The queued rows are the outbox: while the broker is down, jobs wait safely in the database.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from sqlalchemy.exc import IntegrityError

from db import artifacts, batches, jobs
from db.errors import Refused, Unreachable
from db.new_jobs import insert_job
from db.states import FINAL, JobState, ShardState
from db.tables import Job
from scheduler.submission.idempotency import refuse_different
from scheduler.submission.requests import Columns, Preparer, Request
from scheduler.submission.sharding import UNKNOWN_RATE
from worker.broker.doorbell import ring_due
from worker.services import Services
from worker.services.pinned import PinnedGeneration, PinnedTraining
from worker.services.prompts import load_spec, store_prompts
from worker.specs import Spec, is_seed_given, parse_key

log = logging.getLogger(__name__)

UNKNOWN_EVALUATION_S = 60.0


@dataclass(frozen=True)
class Plan:
    """What a job would be: its pinned spec, number of shards and estimated cost."""

    spec: dict[str, Any]
    shards: int
    seconds: float  # of one worker's time
    bytes: int | None  # of samples; None without an earlier job to go by
    ignored: tuple[str, ...] = ()  # keys of a batch's line that change nothing


def enqueue(
    services: Services,
    spec: Spec,
    *,
    shard_size: int | None = None,
    ranges: Sequence[tuple[int, int]] | None = None,
    **columns: Unpack[Columns],
) -> Job:
    """Store a job and ring for it. Raises `Refused` or `NotFound` before anything is stored.

    A shard gets `shard_size` samples, by default as many as fit the live workers and the setting
    `shard_s`; `ranges` states the shards' samples explicitly.
    """
    key = columns.get("idempotency_key")
    job = _job_of_key(services, key, spec)
    if job is None:
        request = prepare(services, spec, shard_size=shard_size, ranges=ranges, **columns)
        try:
            store_prompts(services.store, spec)
            new = request.new_job()
            job = services.database.transact(lambda session: insert_job(session, new))
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
    preparer = Preparer(services)
    return preparer.prepare(spec, shard_size=shard_size, ranges=ranges, **columns)


def estimate(services: Services, request: Request) -> Plan:
    """Estimate what a prepared job will cost."""
    return next(estimate_each(services, [request]))


def estimate_each(services: Services, requests: Iterable[Request]) -> Iterator[Plan]:
    """Estimate what each prepared job will cost."""
    sizes: dict[str, float | None] = {}  # of a sample, by model
    for request in requests:
        pinned, shards = request.pinned, len(request.ranges)
        # another one is drawn when the job is enqueued
        drawn = {} if is_seed_given(request.asked) else {"seed": None}
        if isinstance(pinned, PinnedTraining):
            # the time of a budget in steps depends on the machine, which is not known yet
            seconds = pinned.spec.max_seconds or pinned.family.default_seconds
            yield Plan(pinned.data | drawn, shards, seconds, None)
            continue
        if not isinstance(pinned, PinnedGeneration):
            yield Plan(pinned.data, shards, UNKNOWN_EVALUATION_S, None)
            continue
        if pinned.model not in sizes:
            sizes[pinned.model] = _sample_bytes(services, pinned.model)
        count, size = pinned.spec.count, sizes[pinned.model]
        size_bytes = None if size is None else round(count * size)
        seconds = count / (request.rate or UNKNOWN_RATE)
        yield Plan(pinned.data | drawn, shards, seconds, size_bytes, request.ignored)


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
            if job.batch_id is not None and batches.is_incomplete(session, job.batch_id):
                raise Refused(
                    f"idempotency key {key!r} belongs to a batch that is being submitted",
                    remedy="use a new key",
                )
            refuse_different(session, key, asked, job)
    return job


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
    return sum(artifact.size for artifact in stored) / made or None  # they may be removed
