"""A chain whose worker and scheduler are killed at every point of every stage: `make chaos`."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pytest
from sqlalchemy import func, select

from db import chains, models
from db.session import Database
from db.states import FINAL
from db.tables import Evaluation, ModelVersion, Promotion
from tests.chaos.auditor import Auditor
from tests.chaos.system import ROOT, STEP_S, Supervised, private_broker
from tests.integration.conftest import Deployment
from tests.integration.test_chains import add_words, enqueue_chain
from worker.settings import Settings

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

WORKER_POINTS = ("claimed", "put_after", "committed")
SCHEDULER_POINTS = ("chain_pinned", "chain_released")
PATIENCE_S = 600.0
GRACE_S = 60.0


class Doomed(Supervised):
    """A process that dies at the next of its failpoints each time, until none is left."""

    def __init__(self, command: str, settings: Settings, points: list[str]) -> None:
        self.points = points
        environment = settings.child_environment() | {"PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-m", "scheduler", command]
        super().__init__(words, environment, settings.home / f"worker-{command}.log")

    def kills(self) -> int:
        """How often it has died; waits for it if it is to die now."""
        alive = self.process is not None
        if self.process is not None and self.environment["GENMILL_FAILPOINT"]:
            alive = self.process.wait(GRACE_S) is None
        return self.starts - alive

    def _start(self, log: BinaryIO):
        self.environment["GENMILL_FAILPOINT"] = self.points.pop(0) if self.points else ""
        return super()._start(log)


@contextmanager
def quick_deployment(folder: Path, database_url: str) -> Iterator[Deployment]:
    """A deployment without workers, with every waiting time short and a broker of its own."""
    broker, url = private_broker(folder / "broker.log")
    settings = Settings(
        _env_file=None,
        home=folder,
        database_url=database_url,
        redis_url=url,
        store_url=(folder / "store").as_uri(),
        device="cpu",
        threads=1,
        lease_s=3,
        loop_s=0.3,
        deadline_s=4,
    )
    broker.tend()
    made = Deployment(settings)
    try:
        yield made
    finally:
        made.stop()
        broker.end()
        shutil.rmtree(Path(url.partition("@")[2]).parent)


@pytest.fixture
def deployment(tmp_path: Path, each_database: Database) -> Iterator[Deployment]:
    url = each_database.url.render_as_string(hide_password=False)
    with quick_deployment(tmp_path, url) as made:
        yield made


class Outcome(NamedTuple):
    """What became of a chain whose processes were killed."""

    stages: list[str]  # their states
    kills: tuple[int, int]  # of the worker and of the scheduler
    promotions: list[str]
    made: tuple[int, int]  # versions and evaluations
    champion: int
    violations: list[object]


def kill_at_every_point(
    deployment: Deployment, on_kill: Callable[[], object] = lambda: None
) -> Outcome:
    """Train, evaluate and promote; kill worker and scheduler at each point of each stage."""
    settings = deployment.settings
    add_words(deployment)
    auditor = Auditor(deployment.services, grace_s=GRACE_S)
    made = enqueue_chain(deployment)
    worker = Doomed("worker", settings, list(WORKER_POINTS * len(made)))
    scheduler = Doomed("scheduler", settings, list(SCHEDULER_POINTS * (len(made) - 1)))
    deadline, violations = time.monotonic() + PATIENCE_S, list[object]()
    try:
        while not set(states(deployment, made[0].id)) <= FINAL:
            for kept in (worker, scheduler):
                if kept.tend():
                    on_kill()
            assert time.monotonic() < deadline, deployment.logs()
            violations += auditor.audit()
            time.sleep(STEP_S)
        kills = worker.kills(), scheduler.kills()
    finally:
        for kept in (worker, scheduler):
            kept.end()
    violations += auditor.audit()
    assert (worker.points, scheduler.points) == ([], [])
    with deployment.services.database.read() as session:
        counts = (
            session.scalar(select(func.count()).select_from(table)) or 0
            for table in (ModelVersion, Evaluation)
        )
        return Outcome(
            states(deployment, made[0].id),
            kills,
            list(session.scalars(select(Promotion.outcome))),
            (next(counts), next(counts)),
            models.resolve(session, "writer@champion")[1].number,
            violations,
        )


def test_a_chain_killed_at_every_point_completes_and_promotes_once(deployment, table) -> None:
    row = table.row("a chain killed at every point of every stage", bound_s=PATIENCE_S)
    found = kill_at_every_point(deployment, row.inject)
    row.recovered()
    row.jobs += len(found.stages)
    row.lost += sum(state not in FINAL for state in found.stages)
    assert found.violations == []
    assert found.stages == ["succeeded"] * 3
    assert found.kills[0] >= len(WORKER_POINTS) * 3
    assert found.kills[1] >= len(SCHEDULER_POINTS) * 2
    assert found.promotions == ["promoted"]
    assert (found.made, found.champion) == ((1, 1), 1)


def states(deployment: Deployment, job_id: str) -> list[str]:
    with deployment.services.database.read() as session:
        return [job.status for job in chains.whole(session, job_id)]
