"""Schedules and their due times."""

from datetime import timedelta

import pytest

from db import schedules
from db.errors import NotFound, Refused
from db.session import clock


@pytest.fixture
def now(record):
    return record.run(clock)


def add(record, due, name="nightly"):
    words = {"name": name, "cron": "0 3 * * *", "timezone": "Europe/Zurich", "command": ["enqueue"]}
    rules = {"missed": "skip", "overlap": "queue"}
    return record.run(schedules.add, next_due=due, **words, **rules)


def due(record):
    return [schedule.name for schedule in record.run(schedules.due)[0]]


def test_a_schedule_is_due_when_its_time_has_come(record, now):
    add(record, now, name="now")
    add(record, now - timedelta(hours=1), name="late")
    add(record, now + timedelta(hours=1), name="later")
    assert due(record) == ["late", "now"]


def test_a_paused_schedule_is_not_due_until_it_is_resumed(record, now):
    add(record, now)
    assert record.run(schedules.pause, "nightly").paused
    assert due(record) == []
    record.run(schedules.resume, "nightly")
    assert due(record) == ["nightly"]


def test_a_resumed_schedule_may_start_from_a_new_time(record, now):
    add(record, now)
    record.run(schedules.pause, "nightly")
    record.run(schedules.resume, "nightly", next_due=now + timedelta(hours=1))
    assert due(record) == []


def test_a_due_time_is_taken_once(record, now):
    schedule = add(record, now)
    assert record.run(schedules.record_run, schedule.id, now, outcome="fired", job_id="j")
    assert not record.run(schedules.record_run, schedule.id, now, outcome="fired", job_id="k")
    [run] = record.run(schedules.runs, schedule.id)
    assert (run.job_id, run.due) == ("j", now)


def test_the_next_due_time_is_set(record, now):
    schedule = add(record, now)
    record.run(schedules.set_next_due, schedule.id, now + timedelta(days=1))
    assert due(record) == []
    record.run(schedules.set_next_due, "removed meanwhile", now)


def test_runs_come_newest_first_and_limited(record, now):
    schedule = add(record, now)
    for hours in range(5):
        at = now + timedelta(hours=hours)
        record.run(schedules.record_run, schedule.id, at, outcome="missed", reason="it was down")
    found = [run.due for run in record.run(schedules.runs, schedule.id, 2)]
    assert found == [now + timedelta(hours=4), now + timedelta(hours=3)]


def test_runs_that_enqueued_jobs_stay_visible_behind_skipped_ones(record, now):
    schedule = add(record, now)
    record.run(schedules.record_run, schedule.id, now, outcome="fired", job_id="j")
    for hours in range(1, 5):
        at = now + timedelta(hours=hours)
        record.run(schedules.record_run, schedule.id, at, outcome="skipped", reason="no new data")
    found = [run.outcome for run in record.run(schedules.runs, schedule.id, 2)]
    assert found == ["skipped", "skipped", "fired"]


def test_a_name_is_unique(record, now):
    add(record, now)
    with pytest.raises(Refused, match="already"):
        add(record, now)


def test_removing_a_schedule_removes_its_runs(record, now):
    schedule = add(record, now)
    record.run(schedules.record_run, schedule.id, now, outcome="fired")
    record.run(schedules.remove, "nightly")
    assert record.run(schedules.listing) == []
    assert record.run(schedules.runs, schedule.id) == []


def test_an_unknown_schedule_gets_the_nearest_spelling(record, now):
    add(record, now)
    with pytest.raises(NotFound, match="did you mean 'nightly'"):
        record.run(schedules.pause, "nigthly")
