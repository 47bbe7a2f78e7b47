"""Rounds of simulated schedulers: the real ones, without the steps that have nothing to do."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from scheduler.dispatch.rounds import Steps

if TYPE_CHECKING:
    from tests.simulation.world import World

SELDOM = {
    "bringing late times back",  # no clock goes back
    "collecting garbage of jobs",
    "deleting old data",
    "writing the ledger",
}  # left out in most rounds
HAS_WORK = {
    "adding up counts": "SELECT 1 FROM job_counts WHERE slot <> 0",
    "taking back from dead workers": "SELECT 1 FROM shards WHERE status = 'running'",
    "firing schedules": "SELECT 1 FROM schedules",
    "taking back expired leases": "SELECT 1 FROM shards WHERE status = 'running'",
    "finishing jobs": "SELECT 1 FROM jobs WHERE status IN ('running', 'finalizing')",
    "moving chains on": "SELECT 1 FROM jobs WHERE status = 'waiting'",
    "ringing doorbells": "SELECT 1 FROM shards WHERE status = 'queued'",
    "collecting garbage of jobs": "SELECT 1 FROM jobs",
    "finishing removals": "SELECT 1 FROM tombstones",
    "deleting unfinished batches": "SELECT 1 FROM batches",
    "deleting old data": "SELECT 1 FROM jobs",
    "writing the ledger": "SELECT 1 FROM jobs WHERE status = 'succeeded'",
    "taking down what has expired": "SELECT 1 FROM publications",
}


def run_if_needed(world: "World", run: Callable[..., int]) -> Callable[..., int]:
    """`Steps.run`, unless a look at the rows tells that a step has no work.

    Saying so costs SQLAlchemy a hundred times as much.
    """

    def run_step(steps: Steps, name: str, step: Callable[..., int]) -> int:
        condition = HAS_WORK.get(name, "SELECT 1")
        if name in SELDOM and not world.collects and world.machine.random.random() < 0.7:
            return 0
        has_work = world.services.database.driver.execute(condition).fetchone()
        return run(steps, name, step) if has_work else 0

    return run_step
