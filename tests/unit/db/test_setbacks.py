"""Setbacks: what failed, since when, why, and when it is tried next."""

import time

from db import jobs, setbacks
from db.setbacks import Failure
from db.tables import Setback


def failure(error="it broke", *, counted=True, first_s=0.0, longest_s=60.0):
    return Failure(error, counted, first_s, longest_s)


def note(record, item, *arguments, **options):
    record.run(setbacks.note, "a loop", {item: failure(*arguments, **options)})
    return record.run(setbacks.known, "a loop")[item]


def test_the_pause_is_as_long_as_it_has_been_failing(each_record):
    first = note(each_record, "x")
    assert (first.times, first.again_at) == (1, first.since)
    time.sleep(0.1)
    second = note(each_record, "x")
    assert second.times == 2
    assert second.since == first.since
    assert second.again_at - second.tried_at == second.tried_at - second.since
    third = note(each_record, "x", longest_s=0.05)
    assert (third.again_at - third.tried_at).total_seconds() == 0.05


def test_an_item_is_paused_until_its_time(each_record):
    note(each_record, "now"), note(each_record, "later", first_s=60)
    time.sleep(0.01)
    assert each_record.run(setbacks.paused, "a loop") == {"later"}
    assert each_record.run(setbacks.paused, "another") == set()


def test_what_does_not_count_leaves_the_number_of_times(record):
    assert note(record, "x", counted=False).times == 0
    assert note(record, "x").times == 1
    assert note(record, "x", counted=False).times == 1


def test_the_log_of_a_job_tells_each_reason_once(each_record):
    job_id, shard_id = each_record.add()
    for reason in ("one", "one", "two"):
        note(each_record, job_id, reason)
    note(each_record, shard_id, "three")
    note(each_record, "not a job", "four")
    lines = [line.message for line in each_record.run(jobs.log_lines, job_id)]
    assert lines == [
        f"a loop failed: {said}; it is tried again" for said in ("one", "two", "three")
    ]


def test_what_works_again_is_forgotten(record):
    note(record, "x"), note(record, "y")
    record.run(setbacks.clear, "a loop", ["x"])
    assert [each.item for each in record.run(setbacks.lasting, -1)] == ["y"]
    assert record.run(setbacks.lasting, 60) == []


def test_what_nobody_has_tried_for_long_is_forgotten(record):
    note(record, "gone")

    def make_old(session):
        session.get(Setback, ("a loop", "gone")).tried_at -= setbacks.FORGOTTEN * 2

    record.run(make_old)
    assert record.run(setbacks.lasting, -1) == []
    note(record, "x")
    assert list(record.run(setbacks.known, "a loop")) == ["x"]
