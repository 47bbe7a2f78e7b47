"""One round of the scheduler: schedules, leases, finished jobs, chains, doorbells, garbage.

Any number of schedulers may run at once: each step is one guarded transaction, so that no work is
done twice.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from db import shards
from db.errors import GenmillError
from scheduler.dispatch.chains import move_chains_on
from scheduler.dispatch.garbage import collect_batches, collect_jobs
from scheduler.dispatch.retention import apply_retention, fold_counts
from scheduler.schedules.firing import fire_due
from worker.broker.doorbell import ring_due
from worker.failpoints import reach
from worker.services import Services
from worker.services.finalize import finalize_due

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What one round did."""

    fired: int
    reaped: int
    finalized: int
    moved_on: int  # jobs that waited for another
    rung: int
    collected: int
    discarded: int
    deleted: int  # rows, by retention


def run_round(services: Services) -> Counts:
    """Run one round. A step that fails is logged and counts as 0; the others still run."""
    try_step("adding up counts", lambda: fold_counts(services))
    return Counts(
        fired=try_step("firing schedules", lambda: fire_due(services)),
        reaped=try_step("taking back expired leases", lambda: reap(services)),
        finalized=try_step("finishing jobs", lambda: finalize_due(services)),
        moved_on=try_step("moving chains on", lambda: move_chains_on(services)),
        rung=try_step("ringing doorbells", lambda: ring_due(services)),
        collected=try_step("collecting garbage of jobs", lambda: collect_jobs(services)),
        discarded=try_step("deleting unfinished batches", lambda: collect_batches(services)),
        deleted=try_step("deleting old data", lambda: apply_retention(services)),
    )


def reap(services: Services) -> int:
    """Requeue shards whose lease has expired, or fail them at the limit of claims."""
    max_claims = services.settings.max_claims
    reaped = services.database.transact(lambda s: shards.reap(s, max_claims=max_claims))
    if reaped:
        reach(services.settings, "reaped")
    for shard_id in reaped:
        log.warning("lease expired", extra={"shard": shard_id})
    return len(reaped)


def try_step(name: str, step: Callable[[], int]) -> int:
    """The result of `step`, or 0 if it fails; the error is logged and the next round retries."""
    try:
        return step()
    except GenmillError as error:
        log.warning("%s failed, will be retried: %s", name, error)
    except Exception:
        log.exception("%s failed, will be retried", name)
    return 0
