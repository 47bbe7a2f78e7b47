"""A chain whose worker and scheduler are killed at every point of every stage: `make chaos`."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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

    def _start(self, log: BinaryIO):
        self.environment["GENMILL_FAILPOINT"] = self.points.pop(0) if self.points else ""
        return super()._start(log)


@pytest.fixture
def deployment(tmp_path: Path, each_database: Database) -> Iterator[Deployment]:
    broker, url = private_broker(tmp_path / "broker.log")
    settings = Settings(
        _env_file=None,
        home=tmp_path,
        database_url=each_database.url.render_as_string(hide_password=False),
        redis_url=url,
        store_url=(tmp_path / "store").as_uri(),
        device="cpu",
        threads=1,
        lease_s=3,
        loop_s=0.3,
        deadline_s=4,
    )
    broker.tend()
    made = Deployment(settings)
    yield made
    made.stop()
    broker.end()
    shutil.rmtree(Path(url.partition("@")[2]).parent)


def test_a_chain_killed_at_every_point_completes_and_promotes_once(deployment, table) -> None:
    settings = deployment.settings
    add_words(deployment)
    auditor = Auditor(deployment.services, grace_s=GRACE_S)
    made = enqueue_chain(deployment)
    worker = Doomed("worker", settings, list(WORKER_POINTS * len(made)))
    scheduler = Doomed("scheduler", settings, list(SCHEDULER_POINTS * (len(made) - 1)))
    row = table.row("a chain killed at every point of every stage", bound_s=PATIENCE_S)
    row.jobs += len(made)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not set(states(deployment, made[0].id)) <= FINAL:
            for kept in (worker, scheduler):
                if kept.tend():
                    row.inject()
            assert time.monotonic() < deadline, deployment.logs()
            assert auditor.audit() == []
            time.sleep(STEP_S)
    finally:
        for kept in (worker, scheduler):
            kept.end()
    row.recovered()
    row.lost += sum(state not in FINAL for state in states(deployment, made[0].id))
    assert auditor.audit() == []
    assert states(deployment, made[0].id) == ["succeeded"] * 3
    # each was killed at every point, and started once more
    assert (worker.points, scheduler.points) == ([], [])
    assert worker.starts >= len(WORKER_POINTS) * 3
    assert scheduler.starts >= len(SCHEDULER_POINTS) * 2 + 1
    with deployment.services.database.read() as session:
        assert list(session.scalars(select(Promotion.outcome))) == ["promoted"]
        for table in (ModelVersion, Evaluation):
            assert session.scalar(select(func.count()).select_from(table)) == 1
        assert models.resolve(session, "writer@champion")[1].number == 1


def states(deployment: Deployment, job_id: str) -> list[str]:
    with deployment.services.database.read() as session:
        return [job.status for job in chains.whole(session, job_id)]
