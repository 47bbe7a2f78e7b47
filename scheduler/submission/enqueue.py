"""Enqueueing: a job and its shards are committed as rows, then the doorbell rings.

The queued rows are the outbox: while the broker is down, jobs wait safely in the database.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Unpack

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import batches, chains, jobs, tombstones
from db.columns import new_id
from db.errors import GenmillError, Refused, Unreachable
from db.new_jobs import NewJob, insert_job
from db.states import FINAL, JobState, ShardState
from db.tables import Job, Shard
from scheduler.submission.chains import on_known_data, refuse_undecidable
from scheduler.submission.idempotency import refuse_different, refuse_different_chain
from scheduler.submission.receipts import OnStored, say_nothing, store_or_find, undivided
from scheduler.submission.requests import Columns, Preparer, Request, Waiting
from worker.broker.doorbell import ring_due
from worker.failpoints import reach
from worker.identity import who
from worker.networks.family import Family
from worker.services import Services
from worker.services.marking import refuse_revoked, with_same_marks
from worker.services.prompts import load_spec, store_prompts
from worker.specs import Evaluate, Finetune, Promote, Spec, Train, parse_key, parse_recorded

log = logging.getLogger(__name__)


def enqueue(
    services: Services,
    spec: Spec,
    *,
    then: Sequence[Spec] = (),
    shard_size: int | None = None,
    ranges: Sequence[tuple[int, int]] | None = None,
    on_stored: OnStored = say_nothing,
    **columns: Unpack[Columns],
) -> Job:
    """Store a job and ring for it. Raises `Refused` or `NotFound` before anything is stored.

    Each job of `then` waits for the one before it; all are stored together, and the first is
    returned. A shard gets `shard_size` samples, by default as many as fit the live workers and the
    setting `shard_s`; `ranges` states the shards' samples explicitly. `on_stored` gets the job's id
    before the ringing.
    """
    refuse_wrong_broker(services)
    key = columns.get("idempotency_key")
    job = _job_of_key(services, key, spec, then)
    if job is not None:
        on_stored(job.id)
    else:
        request = prepare(services, spec, shard_size=shard_size, ranges=ranges, **columns)
        waiting = prepare_then(services, request, then)
        job_id = new_id()
        insert = store(services, request, waiting, job_id)
        with undivided():
            try:
                job = insert_or_find(services, insert, job_id)
            except IntegrityError:  # another command has just used the same key
                job = _job_of_key(services, key, spec, then)
                if job is None:
                    raise
            on_stored(job.id)
    ring_or_warn(services)
    return job


def refuse_wrong_broker(services: Services) -> None:
    """Raise `Refused` for settings that are wrong, among them an address of no broker.

    Called before anything is stored. A broker that does not answer does no harm.
    """
    with suppress(Unreachable):
        _ = services.settings.broker


def store(
    services: Services, request: Request, waiting: Sequence[Waiting], job_id: str | None = None
) -> Callable[[Session], Job]:
    """Store the prompts of a job and those after it; return what inserts the jobs."""
    chain: list[Request | Waiting] = [request, *waiting]
    for each in chain:
        store_prompts(services.store, each.asked)
    first, *then = (each.new_job() for each in chain)
    return lambda session: insert_job(session, first._replace(id=job_id), *then)


def insert_or_find(services: Services, insert: Callable[[Session], Job], job_id: str) -> Job:
    """Insert a job; if the database went away meanwhile, look whether it is there."""

    def find(session: Session) -> Job | None:
        return session.get(Job, job_id, options=[jobs.WITH_SPEC])

    return store_or_find(services, insert, find, noun="job", reference=job_id)


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


def prepare_then(services: Services, first: Request, then: Sequence[Spec]) -> list[Waiting]:
    """Check the jobs that are to run after the first, each after the one before it."""
    if isinstance(first.asked, Train | Finetune) and then:
        with services.database.read() as session:
            then = [on_known_data(session, spec, first.asked) for spec in then]
    columns: Columns = {"priority": first.columns.get("priority", 0)}
    if (schedule_id := first.columns.get("schedule_id")) is not None:
        columns["schedule_id"] = schedule_id
    preparer, made = Preparer(services), dict[str, Family]()
    before: Request | Waiting = first
    waiting = []
    for spec in then:
        if isinstance(before.asked, Train | Finetune):
            made[before.model] = before.family
        measured, before = before.asked, preparer.prepare_waiting(spec, made, **columns)
        if isinstance(measured, Evaluate) and isinstance(spec, Promote):
            with services.database.read() as session:
                refuse_undecidable(session, measured, spec, before.family)
        waiting.append(before)
    return waiting


def retry(services: Services, job: Job, *, on_stored: OnStored = say_nothing) -> Job:
    """Enqueue a new job, linked to `job`, for the shards that failed or were cancelled.

    The jobs that were to run after it are enqueued again too, to run after the new one.
    `on_stored` as in `enqueue`. Raises `Gone` if `job` has been removed meanwhile.
    """
    refuse_wrong_broker(services)
    if job.status not in FINAL or job.status == JobState.SUCCEEDED:
        raise Refused(
            f"job {job.id} is {job.status}: only failed and cancelled jobs can be retried"
        )
    with services.database.read() as session:
        tombstones.refuse(session, job.id)
        shards = jobs.shards_of(session, job.id)
        if not shards and job.after_id is not None:
            chains.refuse_retry(session, job)
            refuse_revoked(services, session, parse_recorded(job.spec))
    if shards or job.after_id is None:
        new = _what_is_left(services, job, shards)
    else:
        new = chains.copy_waiting(job)._replace(owner=who())
    job_id = new_id()
    numbered = new._replace(id=job_id)
    with undivided():
        insert = partial(chains.insert_retry, old=job, new=numbered)
        made = insert_or_find(services, insert, job_id)
        on_stored(made.id)
    ring_or_warn(services)
    return made


def _what_is_left(services: Services, job: Job, shards: Sequence[Shard]) -> NewJob:
    ranges: list[tuple[int, int]] | None = None
    if job.wanted is None:  # else which samples are accepted depends on all of them
        ranges = [(s.start, s.stop) for s in shards if s.status != ShardState.SUCCEEDED]
        if not ranges:
            raise Refused(f"job {job.id} has nothing to retry: every shard succeeded")
    return prepare(
        services,
        with_same_marks(load_spec(services.store, job.spec)),
        priority=job.priority,
        custom_id=job.custom_id,
        schedule_id=job.schedule_id,
        retry_of=job.id,
        after_id=job.after_id,
        ranges=ranges,
    ).new_job()


def ring_or_warn(services: Services) -> None:
    """Ring for what is due; whatever prevents it is a warning: a scheduler rings later."""
    try:
        reach(services.settings, "enqueued")
        ring_due(services)
    except Unreachable as error:
        log.warning("stored, but it waits for the broker: %s", error)
    except Exception as error:
        # what was stored is no failure, whatever a driver raises
        told = error if isinstance(error, GenmillError) else f"{type(error).__name__}: {error}"
        log.warning("stored, but no worker was told, a scheduler will do it: %s", told)


def _job_of_key(
    services: Services, key: str | None, asked: Spec, then: Sequence[Spec]
) -> Job | None:
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
            refuse_different_chain(session, key, then, job)
    return job
