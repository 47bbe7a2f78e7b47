"""One round of the scheduler: schedules, leases, finished jobs, doorbells, garbage, the ledger.

Any number of schedulers may run at once: each step is one guarded transaction, so that no work is
done twice.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from db import shards
from scheduler.dispatch.chains import move_chains_on
from scheduler.dispatch.clock_changes import bring_times_back
from scheduler.dispatch.expiry import take_down_expired
from scheduler.dispatch.garbage import collect_batches, collect_jobs
from scheduler.dispatch.retention import apply_retention, fold_counts
from scheduler.removal.objects import sweep_due
from scheduler.schedules.firing import fire_due
from worker.broker.doorbell import ring_due
from worker.failpoints import reach
from worker.services import Services
from worker.services.dead_workers import reap_dead_workers
from worker.services.finalize import finalize_due
from worker.services.ledger import write_ledger
from worker.services.loops import Loop

RunStep = Callable[[str, Callable[[], int]], int]
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
    leaves: int  # of the ledger
    expired: int  # jobs that take down what has


def run_round(services: Services, run_step: RunStep | None = None) -> Counts:
    """Run one round. A step that fails is told and counts as 0; the others still run."""
    with Steps(services, run_step) as steps:
        steps.run("adding up counts", fold_counts)
        steps.run("bringing late times back", bring_times_back)
        steps.run("taking back from dead workers", reap_dead_workers)
        return Counts(
            fired=steps.run("firing schedules", fire_due),
            reaped=steps.run("taking back expired leases", reap),
            finalized=steps.run("finishing jobs", finalize_due),
            moved_on=steps.run("moving chains on", move_chains_on),
            rung=steps.run("ringing doorbells", ring_due),
            collected=steps.run("collecting garbage of jobs", collect_jobs)
            + steps.run("finishing removals", sweep_due),
            discarded=steps.run("deleting unfinished batches", collect_batches),
            deleted=steps.run("deleting old data", apply_retention),
            leaves=steps.run("writing the ledger", write_ledger),
            expired=steps.run("taking down what has expired", take_down_expired),
        )


class Steps(Loop):
    """The steps of a round. They are tried in every round, because others depend on them.

    `run_step` runs each, by its name; by default it is called here.
    """

    def __init__(self, services: Services, run_step: RunStep | None = None) -> None:
        super().__init__(services, "the scheduler's round")
        self._run_step = run_step

    def run(self, name: str, step: Callable[[Services], int]) -> int:
        """What `step` returns, or 0 if it fails."""
        counts, act = [0], partial(step, self.services)
        run_step = self._run_step
        self.attempt(name, lambda: counts.append(run_step(name, act) if run_step else act()))
        return counts[-1]


def reap(services: Services) -> int:
    """Requeue shards whose lease has expired, or fail them at the limit of claims."""
    max_claims = services.settings.max_claims

    def take_back(shard_ids: list[str]) -> list[str]:
        return services.database.transact(
            partial(shards.reap, shards=shard_ids, max_claims=max_claims)
        )

    with Loop(services, "taking back leases") as loop:
        with services.database.read() as session:
            expired = shards.expired(session, without=loop.paused)
        reaped = loop.together(expired, take_back)
    if reaped:
        reach(services.settings, "reaped")
    for shard_id in reaped:
        log.warning("lease expired", extra={"shard": shard_id})
    return len(reaped)
