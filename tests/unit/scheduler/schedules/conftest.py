"""Schedules in a home with a text model."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db import datasets, jobs, models, schedules
from db.session import Database, clock
from db.tables import Job, ScheduleRun
from scheduler.schedules.firing import fire_due
from scheduler.schedules.manage import add_schedule
from worker.services import Services
from worker.settings import Settings

MAKE = ("enqueue", "generate", "prose", "--count", "2", "--priority", "3")


class Clockwork:
    """Services with a text model, and short ways to move due times and see what came of them."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def run(self, step: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.services.database.transact(lambda session: step(session, *args, **options))

    def add(self, name: str = "nightly", command: tuple[str, ...] = MAKE, **how: Any) -> str:
        """Add a schedule, whose own due times are far away; return its id."""
        rules = {"cron": "0 0 1 1 *"} | how
        return add_schedule(self.services, name, command=command, **rules).id

    def make_due(self, schedule_id: str, ago: timedelta = timedelta(0)) -> datetime:
        """Put the next due time `ago` before now."""
        due = self.run(clock) - ago
        self.run(schedules.set_next_due, schedule_id, due)
        return due

    def runs(self, schedule_id: str) -> list[ScheduleRun]:
        return self.run(schedules.runs, schedule_id)

    def outcomes(self, schedule_id: str) -> list[str]:
        """What became of the due times, the oldest first."""
        return [run.outcome for run in reversed(self.runs(schedule_id))]

    def jobs(self, schedule_id: str) -> list[Job]:
        return self.run(jobs.listing, schedule=schedule_id, with_spec=True)

    def fire(self) -> int:
        return fire_due(self.services)


def add_text_model(services: Services, name: str) -> None:
    shape = {"media": "text", "labels": []}
    config = {"genmill": 1, "family": "gpt", "params": {}, "shape": shape}
    blob = services.store.put_bytes("models/blobs", json.dumps(config).encode())
    with services.database.write() as session:
        models.add_version(
            session,
            name=name,
            family="gpt",
            params={},
            files={"config.json": vars(blob)},
            weights_sha256=blob.sha256,
            metrics={},
        )


def add_texts(services: Services, name: str, number: int) -> None:
    with services.database.write() as session:
        datasets.add_version(
            session,
            name=name,
            kind="text",
            manifest_key=f"datasets/blobs/{number}",
            manifest_sha256=f"{number:064}",
            summary={"labels": [], "counts": {"train": 8, "validation": 1, "test": 1}},
        )


def open_clockwork(database: Database, home: Path) -> Clockwork:
    url = database.url.render_as_string(hide_password=False)
    # nobody listens there: what is enqueued waits
    settings = Settings(home=home, database_url=url, redis_url="redis://127.0.0.1:1/0")
    services = Services(settings)
    add_text_model(services, "prose")
    return Clockwork(services)


@pytest.fixture
def clockwork_on(tmp_path: Path) -> Iterator[Callable[[Database], Clockwork]]:
    """Open a clockwork on a database."""
    made = []

    def open_on(database: Database) -> Clockwork:
        made.append(open_clockwork(database, tmp_path / "home"))
        return made[-1]

    yield open_on
    for each in made:
        each.services.close()


@pytest.fixture
def clockwork(clockwork_on: Callable[[Database], Clockwork], database: Database) -> Clockwork:
    return clockwork_on(database)
