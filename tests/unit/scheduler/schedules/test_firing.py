import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from db import jobs, models, schedules
from db.errors import NotFound, Refused
from db.session import Database, clock
from db.tables import Job, ScheduleRun
from scheduler.schedules.firing import add_schedule, fire_due, resume_schedule, trigger_schedule
from worker.services import Services
from worker.settings import Settings

MAKE = ("enqueue", "generate", "prose", "--count", "2", "--priority", "3")
MINUTE = timedelta(minutes=1)


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
        return self.run(jobs.listing, schedule=schedule_id)

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


def clockwork_on(database: Database, home: Path) -> Clockwork:
    url = database.url.render_as_string(hide_password=False)
    # nobody listens there: what is enqueued waits
    settings = Settings(home=home, database_url=url, redis_url="redis://127.0.0.1:1/0")
    services = Services(settings)
    add_text_model(services, "prose")
    return Clockwork(services)


@pytest.fixture
def clockwork(database: Database, tmp_path: Path) -> Iterator[Clockwork]:
    made = clockwork_on(database, tmp_path / "home")
    yield made
    made.services.close()


def test_a_due_schedule_enqueues_what_its_words_say(clockwork):
    schedule = clockwork.add()
    due = clockwork.make_due(schedule)
    assert clockwork.fire() == 1
    (job,) = clockwork.jobs(schedule)
    assert (job.kind, job.spec["count"], job.priority) == ("generate", 2, 3)
    (run,) = clockwork.runs(schedule)
    assert (run.due, run.outcome, run.job_id) == (due, "fired", job.id)


def test_a_due_time_is_answered_once(clockwork):
    schedule = clockwork.add(overlap="queue")
    clockwork.make_due(schedule)
    assert (clockwork.fire(), clockwork.fire()) == (1, 0)
    assert clockwork.run(schedules.get, "nightly").next_due > clockwork.run(clock)


def test_two_schedulers_at_once_fire_a_due_time_once(each_database, tmp_path):
    clockwork = clockwork_on(each_database, tmp_path / "home")
    schedule = clockwork.add(overlap="queue")
    for _ in range(5):
        clockwork.make_due(schedule)
        clockwork.run(
            lambda session: session.query(ScheduleRun).filter_by(schedule_id=schedule).delete()
        )
        together = Barrier(4)

        def fire(together: Barrier = together) -> int:
            together.wait()
            return clockwork.fire()

        before = len(clockwork.jobs(schedule))
        with ThreadPoolExecutor(4) as pool:
            fired = [future.result() for future in [pool.submit(fire) for _ in range(4)]]
        assert sum(fired) == 1
        assert len(clockwork.jobs(schedule)) == before + 1
    clockwork.services.close()


def test_a_due_time_that_was_answered_is_never_fired_again(clockwork):
    schedule = clockwork.add(overlap="queue")
    due = clockwork.make_due(schedule)
    clockwork.fire()
    clockwork.run(schedules.set_next_due, schedule, due)  # as a restored backup might
    assert clockwork.fire() == 0
    assert len(clockwork.jobs(schedule)) == 1
    assert clockwork.run(schedules.get, "nightly").next_due > due


def test_missed_times_are_skipped_when_the_rule_says_so(clockwork):
    schedule = clockwork.add(missed="skip")
    clockwork.make_due(schedule, ago=2 * MINUTE)
    assert clockwork.fire() == 0
    assert clockwork.outcomes(schedule) == ["missed"]
    assert clockwork.jobs(schedule) == []


def test_missed_times_are_made_up_for_once_when_the_rule_says_so(clockwork):
    schedule = clockwork.add(cron="0 0 * * *", missed="once")
    clockwork.make_due(schedule, ago=timedelta(days=3))
    assert (clockwork.fire(), clockwork.fire()) == (1, 0)
    (run,) = clockwork.runs(schedule)
    assert run.outcome == "fired"
    assert "nobody answered" in run.reason


def test_a_time_that_is_due_now_fires_though_earlier_ones_were_missed(clockwork):
    schedule = clockwork.add(cron="* * * * *", missed="skip")
    clockwork.make_due(schedule, ago=10 * MINUTE)
    assert clockwork.fire() == 1
    assert clockwork.outcomes(schedule) == ["missed", "fired"]


def test_a_time_is_skipped_while_the_last_job_goes_on(clockwork):
    schedule = clockwork.add(overlap="skip", missed="once")
    clockwork.make_due(schedule)
    clockwork.fire()
    clockwork.make_due(schedule)
    assert clockwork.fire() == 0
    assert clockwork.outcomes(schedule) == ["fired", "skipped"]
    (job,) = clockwork.jobs(schedule)
    assert job.id in clockwork.runs(schedule)[0].reason


def test_a_time_fires_again_once_the_last_job_has_ended(clockwork):
    schedule = clockwork.add(overlap="skip", missed="once")
    clockwork.make_due(schedule)
    clockwork.fire()
    clockwork.run(jobs.cancel, clockwork.jobs(schedule)[0].id)
    clockwork.make_due(schedule)
    assert clockwork.fire() == 1


def test_a_time_queues_beside_the_last_job_when_the_rule_says_so(clockwork):
    schedule = clockwork.add(overlap="queue", missed="once")
    clockwork.make_due(schedule)
    clockwork.fire()
    clockwork.make_due(schedule)
    assert clockwork.fire() == 1
    assert len(clockwork.jobs(schedule)) == 2


def test_a_paused_schedule_rests_and_does_not_catch_up_when_resumed(clockwork):
    schedule = clockwork.add(missed="once")
    clockwork.make_due(schedule, ago=10 * MINUTE)
    clockwork.run(schedules.pause, "nightly")
    assert clockwork.fire() == 0
    assert resume_schedule(clockwork.services, "nightly").next_due > clockwork.run(clock)
    assert clockwork.fire() == 0
    assert clockwork.runs(schedule) == []


def test_trigger_enqueues_now_even_while_paused(clockwork):
    schedule = clockwork.add()
    clockwork.run(schedules.pause, "nightly")
    (job,) = trigger_schedule(clockwork.services, "nightly")
    (run,) = clockwork.runs(schedule)
    assert (job.schedule_id, run.outcome, run.job_id) == (schedule, "triggered", job.id)


def test_a_command_that_can_no_longer_be_enqueued_is_told_and_does_not_stop_the_others(
    clockwork, tmp_path
):
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps({"kind": "generate", "model": "prose", "count": 1}))
    broken = clockwork.add("broken", command=("enqueue", "batch", str(lines)))
    sound = clockwork.add("sound")
    lines.unlink()
    for schedule in (broken, sound):
        clockwork.make_due(schedule)
    assert clockwork.fire() == 1
    (run,) = clockwork.runs(broken)
    assert run.outcome == "failed"
    assert "lines.jsonl" in run.reason
    assert clockwork.outcomes(sound) == ["fired"]


def test_a_scheduled_batch_makes_a_new_batch_each_time(clockwork, tmp_path):
    lines = tmp_path / "lines.jsonl"
    line = {"kind": "generate", "model": "prose", "count": 1}
    lines.write_text("\n".join(json.dumps(line | {"custom_id": name}) for name in "ab"))
    schedule = clockwork.add(command=("enqueue", "batch", str(lines)))
    clockwork.make_due(schedule)
    clockwork.fire()
    made = clockwork.jobs(schedule)
    assert sorted(str(job.custom_id) for job in made) == ["a", "b"]
    assert len({job.batch_id for job in made}) == 1
    again = trigger_schedule(clockwork.services, "nightly")
    assert again[0].batch_id not in {None, made[0].batch_id}


def test_a_removed_schedule_fires_no_more_and_its_jobs_stay(clockwork):
    schedule = clockwork.add()
    clockwork.make_due(schedule)
    clockwork.fire()
    clockwork.run(schedules.remove, "nightly")
    assert clockwork.fire() == 0
    assert len(clockwork.jobs(schedule)) == 1
    with pytest.raises(NotFound):
        trigger_schedule(clockwork.services, "nightly")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "../x"}, "schedule name"),
        ({"missed": "twice"}, "missed rule"),
        ({"overlap": "stack"}, "overlap rule"),
        ({"cron": "soon"}, "cron expression"),
        ({"timezone": "Mars/Olympus"}, "time zone"),
        ({"command": ("enqueue", "generate", "prose", "--count", "0")}, "count"),
        ({"command": ("enqueue", "generate", "prose", "--count", "1", "--wait")}, "--wait"),
    ],
)
def test_a_wrong_schedule_is_refused_when_it_is_added(clockwork, wrong, says):
    with pytest.raises(Refused, match=says):
        clockwork.add(**wrong)
    assert clockwork.run(schedules.listing) == []


def test_a_schedule_of_an_unknown_model_is_refused_when_it_is_added(clockwork):
    with pytest.raises(NotFound, match="prose"):
        clockwork.add(command=("enqueue", "generate", "prosa", "--count", "1"))
