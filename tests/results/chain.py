"""A chain whose worker and scheduler are killed at every point of every stage."""

from db import schema
from tests.chaos.test_chains import (
    SCHEDULER_POINTS,
    WORKER_POINTS,
    kill_at_every_point,
    quick_deployment,
)
from tests.results.machine import Machine, Result


def chain_killed_everywhere(machine: Machine) -> list[Result]:
    """Train, evaluate, promote, on SQLite; `make chaos` does the same on PostgreSQL too."""
    folder = machine.folder / "killed"
    folder.mkdir()
    url = f"sqlite:///{folder / 'genmill.db'}"
    schema.upgrade(url)
    with quick_deployment(folder, url) as deployment:
        found = kill_at_every_point(deployment)
    least = len(WORKER_POINTS) * 3, len(SCHEDULER_POINTS) * 2
    about = "chain of three jobs, killed at every point"
    enough = all(kills >= bound for kills, bound in zip(found.kills, least, strict=True))
    return [
        Result(
            f"{about}: kills of the worker and of the scheduler",
            f"{found.kills[0]} and {found.kills[1]}",
            f">= {least[0]} and {least[1]}",
            enough,
        ),
        Result(
            f"{about}: its jobs",
            ", ".join(found.stages),
            "all succeeded",
            found.stages == ["succeeded"] * 3,
        ),
        Result(
            f"{about}: promotions, versions, evaluations",
            f"{len(found.promotions)}, {found.made[0]}, {found.made[1]}",
            "1, 1, 1",
            (found.promotions, found.made) == (["promoted"], (1, 1)),
        ),
        Result(
            f"{about}: violations that the auditor found",
            str(len(found.violations)),
            "0",
            not found.violations,
        ),
    ]
