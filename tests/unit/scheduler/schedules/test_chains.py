"""Schedules that retrain: the whole chain at once, and only when there is new data."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from db import chains, jobs, models, schedules
from db.errors import Refused
from db.session import clock
from db.tables import DatasetVersion, ScheduleRun
from scheduler.schedules.manage import trigger_schedule
from scheduler.submission.enqueue import retry
from tests.unit.scheduler.schedules.conftest import add_text_model, add_texts

RETRAIN = ("enqueue", "finetune", "prose", "--dataset", "books", "--evaluate", "--promote")
WAIT = {"new_data_wait": timedelta(minutes=10)}


@pytest.fixture
def clockwork(clockwork):
    add_texts(clockwork.services, "books", 1)
    return clockwork


@pytest.fixture
def fire(clockwork):
    """Make a schedule due and fire it; its jobs end at once. Returns the outcome and reason."""

    def fire_at(schedule, *, end=True):
        clockwork.make_due(schedule)
        clockwork.fire()
        for job in clockwork.jobs(schedule) if end else ():
            clockwork.run(jobs.cancel, job_id=job.id)
        latest = clockwork.runs(schedule)[0]
        return latest.outcome, latest.reason

    return fire_at


def age(clockwork, minutes):
    """Make every dataset version so old."""

    def work(session):
        at = clock(session) - timedelta(minutes=minutes)
        session.execute(update(DatasetVersion).values(created_at=at))

    clockwork.run(work)


def test_a_run_enqueues_the_whole_chain_from_the_champion_of_that_moment(clockwork) -> None:
    schedule = clockwork.add(command=(*RETRAIN, "--priority", "2"))
    add_text_model(clockwork.services, "prose")  # a second version

    def choose(session):
        model, first = models.resolve(session, "prose:1")
        models.set_alias(session, model, "champion", first)

    clockwork.run(choose)
    clockwork.make_due(schedule)
    assert clockwork.fire() == 1
    run = clockwork.runs(schedule)[0]
    chain = clockwork.run(chains.whole, run.job_id)
    assert [(job.kind, job.status) for job in chain] == [
        ("finetune", "queued"),
        ("evaluate", "waiting"),
        ("promote", "waiting"),
    ]
    assert chain[0].spec["model"] == "prose:1"
    assert {(job.schedule_id, job.priority) for job in chain} == {(schedule, 2)}
    clockwork.make_due(schedule)
    assert clockwork.fire() == 0  # its last stage has not ended
    assert clockwork.runs(schedule)[0].outcome == "skipped"


def test_the_retry_of_a_run_is_one_of_its_schedule_in_every_stage(clockwork) -> None:
    schedule = clockwork.add(command=RETRAIN)
    clockwork.make_due(schedule)
    clockwork.fire()
    first = clockwork.run(jobs.get, clockwork.runs(schedule)[0].job_id)
    clockwork.run(jobs.cancel, job_id=first.id)
    again = retry(clockwork.services, clockwork.run(jobs.get, first.id))
    chain = clockwork.run(chains.whole, again.id)
    assert [(job.kind, job.schedule_id) for job in chain] == [
        (kind, schedule) for kind in ("finetune", "evaluate", "promote")
    ]
    clockwork.make_due(schedule)
    assert clockwork.fire() == 0  # the retry has not ended
    assert clockwork.runs(schedule)[0].outcome == "skipped"


def test_without_new_data_a_due_time_is_skipped_with_the_reason(clockwork, fire) -> None:
    schedule = clockwork.add(command=RETRAIN, only_if_new_data=True)
    assert fire(schedule) == ("fired", None)
    assert fire(schedule) == ("skipped", "no new data since books:1")
    add_texts(clockwork.services, "books", 2)
    assert fire(schedule)[0] == "fired"
    assert fire(schedule) == ("skipped", "no new data since books:2")
    trigger_schedule(clockwork.services, "nightly")
    assert clockwork.jobs(schedule)[2].spec["dataset"] == "books:2"
    assert len(clockwork.jobs(schedule)) == 9


def test_a_triggered_run_counts_as_one_that_used_the_data(clockwork, fire) -> None:
    schedule = clockwork.add(command=RETRAIN, only_if_new_data=True)
    for job in trigger_schedule(clockwork.services, "nightly"):
        clockwork.run(jobs.cancel, job_id=job.id)
    assert fire(schedule)[0] == "skipped"


def test_a_burst_of_additions_makes_one_retraining_once_it_is_over(clockwork, fire) -> None:
    schedule = clockwork.add(command=RETRAIN, **WAIT)
    for number in (2, 3):
        add_texts(clockwork.services, "books", number)
        outcome, reason = fire(schedule)
        assert (outcome, f"books:{number} has not been the newest for 10m" in reason) == (
            "skipped",
            True,
        )
        again = clockwork.run(schedules.get, "nightly").next_due - clockwork.run(clock)
        assert timedelta(minutes=9) < again <= timedelta(minutes=10)
    age(clockwork, 10)
    assert fire(schedule)[0] == "fired"
    assert clockwork.jobs(schedule)[2].spec["dataset"] == "books:3"
    assert clockwork.run(schedules.get, "nightly").next_due.month == 1  # as cron says
    assert fire(schedule)[0] == "skipped"


def test_data_of_a_clock_that_was_ahead_are_waited_for_no_longer(clockwork, fire) -> None:
    schedule = clockwork.add(command=RETRAIN, **WAIT)
    age(clockwork, -60 * 24)
    assert fire(schedule)[0] == "fired"


def test_a_run_of_a_clock_that_was_ahead_is_not_the_latest(clockwork, fire) -> None:
    schedule = clockwork.add(command=RETRAIN, only_if_new_data=True)
    assert fire(schedule)[0] == "fired"

    def move(session):
        session.execute(update(ScheduleRun).values(due=clock(session) + timedelta(days=1)))

    clockwork.run(move)
    add_texts(clockwork.services, "books", 2)
    clockwork.make_due(schedule)
    assert clockwork.fire() == 1
    for job in clockwork.jobs(schedule):
        clockwork.run(jobs.cancel, job_id=job.id)
    clockwork.make_due(schedule)
    assert clockwork.fire() == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("enqueue", "finetune", "prose", "--dataset", "books:1"), "always the same version"),
        (("enqueue", "generate", "prose", "--count", "2"), "uses no dataset"),
    ],
)
def test_a_rule_for_new_data_is_refused_where_none_can_come(clockwork, words, told) -> None:
    for rule in ({"only_if_new_data": True}, WAIT):
        with pytest.raises(Refused, match=told):
            clockwork.add(command=words, **rule)


def test_a_policy_is_checked_when_the_schedule_is_added(clockwork, tmp_path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[primary]\nmetric = "loss"\nmargin = -1')
    words = (*RETRAIN, "--policy", str(policy))
    with pytest.raises(Refused, match=r"primary\.margin"):
        clockwork.add(command=words)
    policy.write_text('[primary]\nmetric = "loss"\nmargin = 0.25')
    schedule = clockwork.add(command=words)
    clockwork.make_due(schedule)
    clockwork.fire()
    promotion = clockwork.jobs(schedule)[0]
    assert promotion.spec["policy"]["primary"]["margin"] == 0.25
