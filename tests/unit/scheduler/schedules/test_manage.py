"""Adding, pausing, resuming, triggering and removing schedules."""

from datetime import timedelta

import pytest

from db import schedules
from db.errors import NotFound, Refused
from db.session import clock
from scheduler.schedules.manage import resume_schedule, trigger_schedule
from tests.unit.scheduler.schedules.conftest import MAKE

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


def seeds(clockwork, command=None, **how):
    """The seeds of the jobs of two runs."""
    words = {} if command is None else {"command": command}
    clockwork.add(**words, **how)
    runs = [trigger_schedule(clockwork.services, "nightly") for _ in range(2)]
    return [job.spec["seed"] for made in runs for job in made]


def test_each_run_draws_a_seed_unless_told_otherwise(clockwork):
    first, second = seeds(clockwork)
    assert first != second


def test_a_schedule_may_keep_one_seed_that_was_drawn_when_it_was_added(clockwork):
    first, second = seeds(clockwork, seed="fixed")
    assert first == second
    listed = clockwork.run(schedules.listing)[0].command
    assert listed[-2:] == ["--seed", str(first)]


def test_a_schedule_may_name_its_seed_or_its_command_may(clockwork):
    assert seeds(clockwork, seed="12") == [12, 12]
    clockwork.run(schedules.remove, "nightly")
    assert seeds(clockwork, (*MAKE, "--seed", "5")) == [5, 5]


def test_each_line_of_a_scheduled_batch_draws_a_seed_at_each_run(clockwork, tmp_path):
    line = '{"kind": "generate", "model": "prose", "count": 1}\n'
    (tmp_path / "b.jsonl").write_text(line * 2)
    drawn = seeds(clockwork, ("enqueue", "batch", str(tmp_path / "b.jsonl")))
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("command", "seed", "says"),
    [
        (MAKE, "often", "use fresh, fixed or a whole number"),
        (MAKE, "-1", "use fresh, fixed or a whole number"),
        (MAKE, str(2**63), "seed"),
        ((*MAKE, "--seed", "5"), "fixed", "has a seed of its own"),
        ((*MAKE, "--seed", "5"), "6", "has a seed of its own"),
        (("enqueue", "batch", "b.jsonl"), "fixed", "batch takes no seed"),
    ],
)
def test_a_seed_that_cannot_be_is_refused(clockwork, command, seed, says):
    with pytest.raises(Refused, match=says):
        clockwork.add(command=command, seed=seed)
    assert clockwork.run(schedules.listing) == []
