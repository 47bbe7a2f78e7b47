"""The dispatcher: rings again, takes expired leases back, finishes jobs, collects garbage.

Any number may run at once; each step is one guarded transaction, so two do no more than one. A
step that fails does not keep the others from being done.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from db import artifacts, jobs, shards
from db.errors import GenmillError
from worker.broker.doorbell import ring_due
from worker.services import Services
from worker.services.finalize import finalize_due

log = logging.getLogger(__name__)

COLLECT_AFTER_S = 3600.0  # a job that is final keeps its unnamed blobs this long
STALE_UPLOAD_S = 86_400.0
AT_ONCE = 20


@dataclass(frozen=True)
class Counts:
    """What one round has done."""

    reaped: int
    finalized: int
    rung: int
    collected: int


def dispatch_once(services: Services) -> Counts:
    """Do one round; a part that fails is logged, counts 0 and is tried in the next round."""
    return Counts(
        reaped=_try("taking expired leases back", lambda: reap(services)),
        finalized=_try("finishing jobs", lambda: finalize_due(services)),
        rung=_try("ringing", lambda: ring_due(services)),
        collected=_try("collecting garbage", lambda: collect(services)),
    )


def reap(services: Services) -> int:
    """Put shards back whose lease has run out, or fail them at the limit of claims."""

    def work(session: Session) -> list[str]:
        return shards.reap(session, max_claims=services.settings.max_claims)

    reaped = services.database.transact(work)
    for shard_id in reaped:
        log.warning("lease expired", extra={"shard": shard_id})
    return len(reaped)


def collect(services: Services, *, older_than_s: float = COLLECT_AFTER_S) -> int:
    """Delete the objects of final jobs that the record does not name; say how many.

    Only of jobs that have been final for a while, because nothing can commit to those any more.
    """
    with services.database.read() as session:
        due = [job.id for job in jobs.collectable(session, older_than_s, AT_ONCE)]
    return sum(_collect_job(services, job_id) for job_id in due)


def _collect_job(services: Services, job_id: str) -> int:
    with services.database.read() as session:
        named = artifacts.referenced_keys(session, job_id)
    swept = [key for key in services.store.keys(f"jobs/{job_id}") if key not in named]
    for key in swept:
        services.store.delete(key)
    services.store.abort_uploads(f"jobs/{job_id}", STALE_UPLOAD_S)
    services.database.transact(lambda session: jobs.mark_collected(session, job_id))
    log.info("garbage collected", extra={"job": job_id, "objects": len(swept)})
    return len(swept)


def _try(what: str, step: Callable[[], int]) -> int:
    try:
        return step()
    except GenmillError as error:
        log.warning("%s failed and is tried again: %s", what, error)
        return 0
