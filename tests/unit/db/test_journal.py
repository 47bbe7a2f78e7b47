"""Log lines and curves."""

import time

from db import jobs
from db.session import clock
from db.tables import LogLine


def test_log_lines_come_in_order(record):
    job_id, _ = record.add()
    for i in range(3):
        record.run(jobs.log, job_id, f"line {i}")
    lines = record.run(jobs.log_lines, job_id)
    assert [line.message for line in lines] == ["line 0", "line 1", "line 2"]
    assert lines[0].level == "info"


def test_log_lines_of_a_time_span(record):
    job_id, _ = record.add()
    record.run(jobs.log, job_id, "early")
    time.sleep(0.002)  # SQLite's clock counts milliseconds
    now = record.run(clock)
    record.run(jobs.log, job_id, "late")
    lines = record.run(jobs.log_lines, job_id, since=now)
    assert [line.message for line in lines] == ["late"]


def test_log_lines_keep_their_order_when_a_workers_clock_is_a_day_ahead(record):
    job_id, _ = record.add()
    for name, number in (("first", 9), ("second", 1)):
        line = {"id": f"{number:036}", "job_id": job_id, "level": "info", "message": name}
        record.run(lambda s, line=line: s.add(LogLine(at=clock(s), **line)))
        time.sleep(0.002)  # SQLite's clock counts milliseconds
    first, second = record.run(jobs.log_lines, job_id)
    assert (first.message, second.message) == ("first", "second")


def test_a_log_line_written_again_under_its_id_is_still_one_line(record):
    job_id, _ = record.add()
    for message in ("first", "second"):
        record.run(jobs.log, job_id, message, line_id="0" * 36)
    assert [line.message for line in record.run(jobs.log_lines, job_id)] == ["first"]


def test_a_point_written_again_replaces_the_first(record):
    job_id, _ = record.add()
    record.run(jobs.add_points, job_id, 1, {"loss": 3.0, "accuracy": 0.1})
    record.run(jobs.add_points, job_id, 2, {"loss": 2.0})
    record.run(jobs.add_points, job_id, 2, {"loss": 1.0})
    found = [(each.name, each.step, each.value) for each in record.run(jobs.points, job_id)]
    assert found == [("accuracy", 1, 0.1), ("loss", 1, 3.0), ("loss", 2, 1.0)]


def test_points_after_a_resumed_step_are_deleted(record):
    job_id, _ = record.add()
    for step in (1, 2, 3):
        record.run(jobs.add_points, job_id, step, {"loss": 1.0})
    record.run(jobs.drop_points_after, job_id, 2)
    assert [point.step for point in record.run(jobs.points, job_id)] == [1, 2]
