"""The one door: a job and its shards are committed as rows, then the doorbell rings.

The queued rows are the outbox. When the broker is down the job is safe and merely waits.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import artifacts, jobs
from db.errors import Refused, Unreachable
from db.states import FINAL, JobState, ShardState
from db.tables import Job
from scheduler.submission.idempotency import refuse_another
from scheduler.submission.pinning import AnySpec, Pinned, pin
from worker.broker.doorbell import ring_due
from worker.services import Services
from worker.specs import Generate, parse_key, parse_spec

log = logging.getLogger(__name__)

UNKNOWN_RATE = 50.0  # samples a second of a version whose speed was never measured
MAX_SHARDS = 100_000
MAX_PRIORITY = 1_000_000


@dataclass(frozen=True)
class Request:
    """A job that is fit to be stored, and what its row says besides the spec."""

    asked: AnySpec  # before names were pinned
    pinned: Pinned
    ranges: Sequence[tuple[int, int]]
    priority: int = 0
    idempotency_key: str | None = None
    custom_id: str | None = None
    batch_id: str | None = None
    schedule_id: str | None = None
    retry_of: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a job would be: its pinned spec, its shards and a guess at its cost."""

    spec: dict[str, Any]
    shards: int
    seconds: float  # of one worker's time
    bytes: int | None  # of samples; None where no job tells


def enqueue(
    services: Services,
    spec: AnySpec | Mapping[str, Any],
    *,
    shard_size: int | None = None,
    ranges: Sequence[tuple[int, int]] | None = None,
    **columns: Any,
) -> Job:
    """Store a job and ring for it. Raises `Refused` or `NotFound` before anything is stored.

    `columns` are those of `Request`: `priority`, `idempotency_key` (the same one gives the same job
    back), `custom_id`, `batch_id`, `schedule_id`, `retry_of`. A shard gets `shard_size` samples, or
    as many as `shard_s` seconds make; `ranges` states the shards outright.
    """
    job = _earlier(services, columns.get("idempotency_key"), spec)
    if job is None:
        job = store(
            services, prepare(services, spec, shard_size=shard_size, ranges=ranges, **columns)
        )
    ring_softly(services)
    return job


def prepare(
    services: Services,
    spec: AnySpec | Mapping[str, Any],
    *,
    shard_size: int | None = None,
    ranges: Sequence[tuple[int, int]] | None = None,
    **columns: Any,
) -> Request:
    """Check and pin a spec and cut it into shards; stores nothing. Arguments as for `enqueue`."""
    if abs(columns.get("priority", 0)) > MAX_PRIORITY:
        raise Refused(
            f"priority {columns['priority']}: allowed are -{MAX_PRIORITY} to {MAX_PRIORITY}"
        )
    asked = _as_spec(spec)
    with services.database.read() as session:
        pinned = pin(services, session, asked)
    ranges = ranges or _split(pinned, services.settings.shard_s, shard_size)
    return Request(asked, pinned, ranges, **columns)


def insert(session: Session, request: Request) -> Job:
    """Insert a job within the caller's transaction, who commits and then rings (`ring_softly`)."""
    return jobs.add(
        session,
        spec=request.pinned.data,
        spec_hash=request.pinned.spec_hash,
        kind=request.pinned.spec.kind,
        model=request.pinned.model,
        ranges=request.ranges,
        priority=request.priority,
        batch_id=request.batch_id,
        custom_id=request.custom_id,
        schedule_id=request.schedule_id,
        retry_of=request.retry_of,
        idempotency_key=request.idempotency_key,
    )


def store(services: Services, request: Request) -> Job:
    """Insert and commit; of two that use one idempotency key at once, both get the same job."""
    try:
        return services.database.transact(lambda session: insert(session, request))
    except IntegrityError:
        job = _earlier(services, request.idempotency_key, request.asked)
        if job is None:
            raise
        return job


def estimate(
    services: Services, spec: AnySpec | Mapping[str, Any], *, shard_size: int | None = None
) -> Plan:
    """What the job would be and cost; stores nothing. Raises as `enqueue` does."""
    return cost(services, prepare(services, spec, shard_size=shard_size))


def cost(services: Services, request: Request) -> Plan:
    """What a prepared job is guessed to cost."""
    pinned, shards = request.pinned, len(request.ranges)
    if not isinstance(pinned.spec, Generate):
        # a budget in steps alone takes as long as the machine needs, which nobody knows yet
        seconds = pinned.spec.max_seconds or pinned.family.default_seconds
        return Plan(pinned.data, shards, seconds, None)
    count, size = pinned.spec.count, _sample_bytes(services, pinned.model)
    size_bytes = None if size is None else round(count * size)
    return Plan(pinned.data, shards, count / _rate(pinned), size_bytes)


def retry(services: Services, job: Job) -> Job:
    """A new job, linked to `job`, of the shards that failed or were cancelled."""
    if job.status not in FINAL or job.status == JobState.SUCCEEDED:
        raise Refused(
            f"job {job.id} is {job.status}; only a failed or cancelled job can be retried"
        )
    with services.database.read() as session:
        shards = jobs.shards_of(session, job.id)
    return enqueue(
        services,
        job.spec,
        priority=job.priority,
        custom_id=job.custom_id,
        retry_of=job.id,
        ranges=[(s.start, s.stop) for s in shards if s.status != ShardState.SUCCEEDED],
    )


def ring_softly(services: Services) -> None:
    """Ring for what is due; when the broker is down, warn: the rows are safe and ring later."""
    try:
        ring_due(services)
    except Unreachable as error:
        log.warning("stored; it waits for the broker: %s", error)


def _as_spec(spec: AnySpec | Mapping[str, Any]) -> AnySpec:
    return parse_spec(spec) if isinstance(spec, Mapping) else spec


def _earlier(services: Services, key: str | None, spec: AnySpec | Mapping[str, Any]) -> Job | None:
    """The job that an idempotency key has made; refuses the key for another request."""
    if key is None:
        return None
    with services.database.read() as session:
        job = jobs.by_idempotency_key(session, parse_key("idempotency key", key))
        if job is not None:
            refuse_another(session, key, _as_spec(spec), job)
    return job


def _split(pinned: Pinned, shard_s: float, shard_size: int | None) -> list[tuple[int, int]]:
    """Cut a generate job by time, rounded to micro-batches; any other job is one shard."""
    spec = pinned.spec
    if not isinstance(spec, Generate):
        return [(0, 1)]
    size = shard_size or _shard_size(pinned, shard_s, spec)
    if size < 1 or spec.count > size * MAX_SHARDS:
        least = math.ceil(spec.count / MAX_SHARDS)
        raise Refused(f"shard size {size}: {spec.count} samples need at least {least} in a shard")
    return [(start, min(start + size, spec.count)) for start in range(0, spec.count, size)]


def _shard_size(pinned: Pinned, shard_s: float, spec: Generate) -> int:
    """Samples that take about `shard_s`, in whole micro-batches, within `MAX_SHARDS`."""
    micro_batch = int(str(spec.params["micro_batch"]))
    wanted = max(_rate(pinned) * shard_s, spec.count / MAX_SHARDS)
    return math.ceil(wanted / micro_batch) * micro_batch


def _rate(pinned: Pinned) -> float:
    """Samples a second, as measured at the end of training."""
    metrics = pinned.version.metrics if pinned.version else {}
    return float(metrics.get("samples_per_second") or UNKNOWN_RATE)


def _sample_bytes(services: Services, model: str) -> float | None:
    """Bytes of a sample, as in the model's last succeeded generate job."""
    with services.database.read() as session:
        found = jobs.listing(
            session, status=JobState.SUCCEEDED, kind="generate", model=model, limit=1
        )
        if not found:
            return None
        stored = artifacts.of_job(session, found[0].id, kind="samples")
        # a retry makes only some of the samples that its spec counts
        made = sum(shard.stop - shard.start for shard in jobs.shards_of(session, found[0].id))
    return sum(artifact.size for artifact in stored) / made
