"""One attempt at a shard: claim -> engine -> commit, and what becomes of it when it fails.

Knows the engine and the record; knows no Celery. The type of an error decides: see `db.errors`.
"""

import logging
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from sqlalchemy.orm import Session

from db import jobs, shards
from db.errors import (
    Collapsed,
    DigestMismatch,
    Draining,
    GenmillError,
    NonFinite,
    NotFound,
    Refused,
    Stopped,
    Unreachable,
)
from db.shards import Claim
from db.states import JobState
from db.tables import Job
from worker.broker.doorbell import ring_due
from worker.failpoints import pass_by
from worker.services import Services
from worker.services.finalize import finalize
from worker.shards.context import Made, WorkerContext
from worker.shards.generate import generate_shard
from worker.shards.lease import Lease, fail
from worker.shards.scratch import scratch
from worker.shards.train import train_job
from worker.shared_memory import Wire
from worker.specs import Generate, parse_spec

log = logging.getLogger(__name__)

FINAL_ERRORS = (Refused, NotFound, NonFinite, Collapsed, DigestMismatch)
STUCK = 70  # the exit code of a process that ends itself, EX_SOFTWARE of sysexits.h
MAX_BACKOFF_S = 60.0
PAUSE_S = 1.0


def work(bench: WorkerContext, shard_id: str, *, owner: str, wire: Wire) -> None:
    """Answer one doorbell as the worker boot `owner`: do the shard, unless someone else has it."""
    claim = _claim(bench.services, shard_id, owner=owner, wire=wire)
    if claim is None:
        return
    log.info("shard claimed", extra=_fields(claim))
    try:
        _attempt(bench, claim, wire)
        log.info("shard succeeded", extra=_fields(claim))
    except Draining:
        _release(bench.services, claim, "the worker shut down", backoff_s=0)
    except Stopped as order:
        log.info("shard dropped: %s", order, extra=_fields(claim))
    except Unreachable as error:
        backoff_s = min(MAX_BACKOFF_S, 2.0 ** min(claim.fence, 10))
        _release(bench.services, claim, str(error), backoff_s=backoff_s)
    except FINAL_ERRORS as error:
        _fail(bench.services, claim, error, final=True)
    except torch.AcceleratorError as error:  # CUDA answers all that follows with the same fault
        _fail(bench.services, claim, error, final=False)
        _end_process()
    except Exception as error:  # whatever it was, it counts, and the next shard goes on
        _fail(bench.services, claim, error, final=False)
    _go_on(bench.services, claim)


def _attempt(bench: WorkerContext, claim: Claim, wire: Wire) -> None:
    with bench.services.database.read() as session:
        job = jobs.get(session, claim.job_id)
    work_folder = bench.services.settings.home / "work"
    with (
        scratch(work_folder) as folder,
        Lease(bench.services, claim, wire=wire, on_hang=_end_process) as lease,
    ):
        pass_by(bench.services.settings, "claimed")
        made = _make(bench, job, lease, folder)
        pass_by(bench.services.settings, "put_after")
        lease.commit(made.artifacts, made.also)
        pass_by(bench.services.settings, "committed")


def _make(bench: WorkerContext, job: Job, lease: Lease, folder: Path) -> Made:
    spec = parse_spec(job.spec)
    if isinstance(spec, Generate):
        return generate_shard(bench, job, spec, lease, folder)
    return train_job(bench, job, spec, lease, folder)


def _claim(services: Services, shard_id: str, *, owner: str, wire: Wire) -> Claim | None:
    """Claim the shard; while the database is away, wait, for this doorbell may be the only one."""
    settings = services.settings

    def take(session: Session) -> Claim | None:
        return shards.claim(
            session,
            shard_id,
            owner=owner,
            lease_s=settings.lease_s,
            max_claims=settings.max_claims,
        )

    while not wire.draining:
        try:
            return services.database.transact(take)
        except Unreachable as error:
            log.warning("the claim waits: %s", error, extra={"shard": shard_id})
            time.sleep(PAUSE_S)
    return None


def _release(services: Services, claim: Claim, reason: str, *, backoff_s: float) -> None:
    def give_back(session: Session) -> None:
        shards.release(session, claim, reason, backoff_s=backoff_s)

    log.info("shard released: %s", reason, extra=_fields(claim))
    _report(services, claim, lambda: services.database.transact(give_back))


def _fail(services: Services, claim: Claim, error: Exception, *, final: bool) -> None:
    text = str(error) if isinstance(error, GenmillError) else f"{type(error).__name__}: {error}"
    log.warning("shard failed: %s", text, extra=_fields(claim), exc_info=not final)

    def note(session: Session) -> None:
        if not isinstance(error, GenmillError):
            trace = "".join(traceback.format_exception(error))
            jobs.log(session, claim.job_id, trace, level="error")

    _report(services, claim, lambda: fail(services, claim, text, final=final, also=note))


def _report(services: Services, claim: Claim, step: Callable[[], object]) -> None:
    """Do `step`, again while the database is away; after a lease's time the reaper has it."""
    deadline = time.monotonic() + services.settings.lease_s
    while True:
        try:
            step()
        except Stopped as order:
            log.info("no report: %s", order, extra=_fields(claim))
        except Unreachable as error:
            log.warning("the report waits: %s", error, extra=_fields(claim))
            if time.monotonic() < deadline:
                time.sleep(PAUSE_S)
                continue
        return


def _go_on(services: Services, claim: Claim) -> None:
    """Finish the job if that was its last shard, and ring for what is next; both best effort."""
    try:
        with services.database.read() as session:
            state = jobs.get(session, claim.job_id).status
        if state == JobState.FINALIZING:
            finalize(services, claim.job_id)
        ring_due(services)
    except GenmillError as error:
        log.warning("left to the scheduler: %s", error, extra=_fields(claim))


def _fields(claim: Claim) -> dict[str, object]:
    return {"job": claim.job_id, "shard": claim.idx, "claim": claim.fence}


def _end_process() -> None:
    os._exit(STUCK)
