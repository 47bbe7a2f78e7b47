"""A schedule that cannot be fired, for whatever reason, stops no other."""

import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from db import schedules, setbacks
from db.causes import is_outage
from db.errors import Refused
from scheduler.dispatch.clock_changes import bring_times_back
from scheduler.schedules import firing
from scheduler.schedules.firing import fire_due
from tests.faults import ERRORS, failing_for, name_of
from worker.isolation import described

every_error = pytest.mark.parametrize("error", ERRORS, ids=name_of)


@pytest.fixture
def clockwork(clockwork):
    clockwork.services.settings = clockwork.services.settings.model_copy(update={"loop_s": 0.01})
    return clockwork


@pytest.fixture
def due(clockwork):
    """The ids of three schedules that are due, by their names."""
    made = {name: clockwork.add(name) for name in ("first", "second", "third")}
    for schedule_id in made.values():
        clockwork.make_due(schedule_id)
    return made


@pytest.fixture
def break_first(monkeypatch):
    """Lets the command of the schedule `first` fail so often; tells when it has."""
    prepare = firing.prepared_jobs

    def break_it(error, *, times=1000):
        tries = []

        @contextmanager
        def broken(services, schedule):
            if schedule.name == "first" and len(tries) < times:
                tries.append(error)
                raise error
            with prepare(services, schedule) as prepared:
                yield prepared

        monkeypatch.setattr(firing, "prepared_jobs", broken)
        return tries

    return break_it


def fire_again(clockwork, *, rounds):
    for _ in range(rounds):
        time.sleep(0.05)
        fire_due(clockwork.services)


@pytest.mark.parametrize(("column", "value"), [("command", "{}"), ("next_due", ""), ("cron", 7)])
def test_a_damaged_row_stops_no_other(clockwork, due, column, value) -> None:
    damage = text(f"UPDATE schedules SET {column} = :value WHERE name = 'first'")
    with clockwork.services.database.write() as session:
        session.execute(damage, {"value": value})
    assert fire_due(clockwork.services) == 2
    assert clockwork.outcomes(due["second"]) == clockwork.outcomes(due["third"]) == ["fired"]
    bring_times_back(clockwork.services)
    clockwork.run(schedules.remove, "first")
    assert [each.name for each in clockwork.run(schedules.listing)] == ["second", "third"]


@every_error
def test_a_command_that_fails_once_fires_the_next_time(clockwork, due, break_first, error) -> None:
    break_first(error, times=1)
    assert fire_due(clockwork.services) == 2
    assert clockwork.outcomes(due["first"]) == []
    time.sleep(0.05)
    assert fire_due(clockwork.services) == 1
    assert clockwork.outcomes(due["first"]) == ["fired"]


@every_error
def test_a_command_that_fails_again_and_again_is_a_failed_run(
    clockwork, due, break_first, error
) -> None:
    tries = break_first(error)
    fire_again(clockwork, rounds=8)
    if is_outage(error):  # it waits
        assert clockwork.outcomes(due["first"]) == []
        return
    assert len(tries) == clockwork.services.settings.max_failures
    [run] = clockwork.runs(due["first"])
    assert (run.outcome, run.reason) == ("failed", described(error))
    assert clockwork.run(setbacks.lasting, longer_than_s=-1) == []


def test_a_command_that_is_refused_is_a_failed_run_at_once(
    clockwork, due, break_first, caplog
) -> None:
    break_first(Refused("the model is gone"))
    assert fire_due(clockwork.services) == 2
    assert clockwork.outcomes(due["first"]) == ["failed"]
    assert "failed for first, and is given up: the model is gone" in caplog.text


def test_a_late_run_that_has_failed_says_why(clockwork, break_first) -> None:
    schedule = clockwork.add("first", missed="skip")
    clockwork.make_due(schedule, ago=timedelta(minutes=5))
    break_first(Refused("the model is gone"))
    fire_due(clockwork.services)
    assert clockwork.outcomes(schedule) == ["failed"]


@every_error
def test_a_run_that_cannot_be_recorded_is_tried_again(clockwork, due, monkeypatch, error) -> None:
    handle = firing._handle
    of_first = failing_for("first", error, handle, of=lambda _, seen, *__: seen.name)
    with monkeypatch.context() as patch:
        patch.setattr(firing, "_handle", of_first)
        assert fire_due(clockwork.services) == 2
    assert clockwork.outcomes(due["first"]) == []
    [setback] = clockwork.run(setbacks.lasting, longer_than_s=-1)
    assert (setback.loop, setback.item) == ("firing schedules", "first")
    time.sleep(0.05)
    assert fire_due(clockwork.services) == 1
    assert clockwork.run(setbacks.lasting, longer_than_s=-1) == []
