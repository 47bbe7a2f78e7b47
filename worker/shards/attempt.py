"""One attempt at a shard: claim, engine, commit; and the report if it fails.

The type of an error decides what is reported: see `db.errors`.
"""

import logging
import os
import time
import traceback
from collections.abc import Callable

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
from worker.broker.doorbell import ring_due
from worker.failpoints import crash_at
from worker.services import Services
from worker.services.finalize import finalize
from worker.services.pinned import PinnedGeneration, pin_model
from worker.services.prompts import load_spec
from worker.shards.context import WorkerContext
from worker.shards.generate import generate_shard
from worker.shards.lease import Lease, fail
from worker.shards.scratch import scratch
from worker.shards.train import train_job
from worker.shared_memory import SharedState

log = logging.getLogger(__name__)

FINAL_ERRORS = (Refused, NotFound, NonFinite, Collapsed, DigestMismatch)
MAX_BACKOFF_S = 60.0
PAUSE_S = 1.0


def work(context: WorkerContext, shard_id: str, *, owner: str, shared: SharedState) -> None:
    """Answer one doorbell as the worker boot `owner`: claim the shard, if it is free, and run it.

    Raises `Draining` if the worker shut down before it could claim the shard.
    """
    claim = _claim(context.services, shard_id, owner=owner, shared=shared)
    if claim is None:
        return
    log.info("shard claimed", extra=_fields(claim))
    try:
        _attempt(context, claim, shared)
        log.info("shard succeeded", extra=_fields(claim))
    except Draining:
        _release(context.services, claim, "the worker shut down", backoff_s=0)
    except Stopped as order:
        log.info("shard dropped: %s", order, extra=_fields(claim))
    except Unreachable as error:
        backoff_s = min(MAX_BACKOFF_S, 2.0 ** min(claim.fence, 10))
        _release(context.services, claim, str(error), backoff_s=backoff_s)
    except FINAL_ERRORS as error:
        _fail(context.services, claim, error, final=True)
    except torch.AcceleratorError as error:  # every later CUDA call of this process fails too
        _fail(context.services, claim, error, final=False)
        _end_process()
    except Exception as error:  # counted as a failure; the worker goes on to the next shard
        _fail(context.services, claim, error, final=False)
    _finish_and_ring(context.services, claim)


def _attempt(context: WorkerContext, claim: Claim, shared: SharedState) -> None:
    with context.services.database.read() as session:
        job = jobs.get(session, claim.job_id)
    spec = load_spec(context.services.store, job.spec)
    with context.services.database.read() as session:
        pinned = pin_model(session, spec)
    with (
        scratch(context.services.settings.home / "work") as folder,
        Lease(context.services, claim, shared=shared, on_hang=_end_process) as lease,
    ):
        crash_at(context.services.settings, "claimed")
        if isinstance(pinned, PinnedGeneration):
            result = generate_shard(context, job, pinned, lease, folder)
        else:
            result = train_job(context, job, pinned, lease, folder)
        crash_at(context.services.settings, "put_after")
        lease.commit(result.artifacts, result.writes)
        crash_at(context.services.settings, "committed")


def _claim(services: Services, shard_id: str, *, owner: str, shared: SharedState) -> Claim | None:
    """Claim the shard; wait while the database is away. Raises `Draining`."""
    settings = services.settings

    def take(session: Session) -> Claim | None:
        return shards.claim(
            session,
            shard_id,
            owner=owner,
            lease_s=settings.lease_s,
            max_claims=settings.max_claims,
        )

    while not shared.draining:
        try:
            return services.database.transact(take)
        except Unreachable as error:
            log.warning("the claim waits for the database: %s", error, extra={"shard": shard_id})
            time.sleep(PAUSE_S)
    raise Draining


def _release(services: Services, claim: Claim, reason: str, *, backoff_s: float) -> None:
    def give_back(session: Session) -> None:
        shards.release(session, claim, reason, backoff_s=backoff_s)

    log.info("shard released: %s", reason, extra=_fields(claim))
    _report(services, claim, lambda: services.database.transact(give_back))


def _fail(services: Services, claim: Claim, error: Exception, *, final: bool) -> None:
    text = str(error) if isinstance(error, GenmillError) else f"{type(error).__name__}: {error}"
    log.warning("shard failed: %s", text, extra=_fields(claim), exc_info=not final)

    def log_trace(session: Session) -> None:
        if not isinstance(error, GenmillError):
            trace = "".join(traceback.format_exception(error))
            jobs.log(session, claim.job_id, trace, level="error")

    _report(services, claim, lambda: fail(services, claim, text, final=final, also=log_trace))


def _report(services: Services, claim: Claim, step: Callable[[], object]) -> None:
    """Run `step` until the database answers; after `lease_s`, the reaper reports instead."""
    deadline = time.monotonic() + services.settings.lease_s
    while True:
        try:
            step()
        except Stopped as order:  # perhaps an earlier try was recorded and its reply lost
            log.info("nothing left to report: %s", order, extra=_fields(claim))
        except Unreachable as error:
            log.warning("the report waits for the database: %s", error, extra=_fields(claim))
            if time.monotonic() < deadline:
                time.sleep(PAUSE_S)
                continue
        return


def _finish_and_ring(services: Services, claim: Claim) -> None:
    """Finish the job if this was its last shard, and ring for what is due. Best effort."""
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
    os._exit(os.EX_SOFTWARE)
