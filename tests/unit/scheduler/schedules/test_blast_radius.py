"""A schedule that cannot be fired, for whatever reason, stops no other."""

import time
from contextlib import contextmanager

import pytest

from db import setbacks
from db.causes import is_outage
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


@every_error
def test_a_command_that_fails_is_a_failed_run(clockwork, due, monkeypatch, error) -> None:
    prepare = firing.prepared_jobs

    @contextmanager
    def broken(services, schedule):
        if schedule.name == "first":
            raise error
        with prepare(services, schedule) as prepared:
            yield prepared

    monkeypatch.setattr(firing, "prepared_jobs", broken)
    assert fire_due(clockwork.services) == 2
    if is_outage(error):  # it waits
        assert clockwork.outcomes(due["first"]) == []
        monkeypatch.setattr(firing, "prepared_jobs", prepare)
        time.sleep(0.05)
        assert fire_due(clockwork.services) == 1
        return
    [run] = clockwork.runs(due["first"])
    assert run.outcome == "failed"
    assert run.reason == described(error)


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
