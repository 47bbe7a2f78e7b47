"""Workers, one row for each boot."""

from datetime import timedelta

from db import workers
from db.tables import Worker


def start(record, boot_id):
    return record.run(workers.start, boot_id=boot_id, host="box", pid=7, device="cpu")


def test_many_workers_beat_less_often_but_within_a_quarter_of_the_lease() -> None:
    assert workers.beat_pause_s(2, live=1, lease_s=60) == 2
    assert workers.beat_pause_s(2, live=1000, lease_s=60) == 10
    assert workers.beat_pause_s(2, live=5000, lease_s=60) == 15
    assert workers.beat_pause_s(2, live=1, lease_s=2) == 0.5


def live(record):
    return [worker.boot_id for worker in record.run(workers.live, 60)]


def test_a_started_worker_is_live_until_it_stops(record):
    start(record, "a")
    start(record, "b")
    assert live(record) == ["a", "b"]
    record.run(workers.stop, "a")
    assert live(record) == ["b"]


def test_a_boot_recorded_twice_is_one_worker(record):
    start(record, "a")
    start(record, "a")
    assert live(record) == ["a"]


def test_a_silent_worker_lives_no_longer_until_it_beats(record):
    start(record, "a")

    def silence(session):
        worker = session.get(Worker, "a")
        worker.heartbeat_at -= timedelta(hours=1)

    record.run(silence)
    assert live(record) == []
    record.run(workers.beat, "a")
    assert live(record) == ["a"]
