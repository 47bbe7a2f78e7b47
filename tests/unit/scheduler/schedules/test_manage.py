"""Adding, pausing, resuming, triggering and removing schedules."""

from datetime import timedelta

import pytest

from db import schedules
from db.errors import NotFound, Refused
from db.session import clock
from scheduler.schedules.manage import resume_schedule, trigger_schedule

MINUTE = timedelta(minutes=1)


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
        ({"name": "../x"}, "name of a schedule"),
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
