"""Answering due times: once each, by the schedule's rules."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

from db import jobs, schedules
from db.session import clock
from db.tables import ScheduleRun
from scheduler.schedules.manage import trigger_schedule

MINUTE = timedelta(minutes=1)


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


def test_two_schedulers_at_once_fire_a_due_time_once(each_database, clockwork_on):
    clockwork = clockwork_on(each_database)
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
    assert "missed from" in run.reason


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
