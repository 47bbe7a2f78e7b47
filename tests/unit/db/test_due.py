"""Which shards to ring for, and in which order."""

import pytest

from db import batches, shards, workers


@pytest.fixture
def take(record):
    def take(*, per_worker=4, deadline_s=60):
        return record.run(shards.take_due, per_worker=per_worker, deadline_s=deadline_s)

    return take


@pytest.fixture
def crew(record):
    def crew(size):
        for i in range(size):
            record.run(workers.start, boot_id=f"boot-{i}", host="h", pid=i, device="cpu")

    return crew


def ranges(count):
    return [(i, i + 1) for i in range(count)]


def test_without_a_known_worker_a_few_are_rung_for(record, take):
    record.add(*ranges(10))
    assert len(take(per_worker=2)) == 4


def test_as_many_are_outstanding_as_the_workers_can_take(record, take, crew):
    record.add(*ranges(30))
    crew(5)
    assert len(take(per_worker=2)) == 10
    assert take(per_worker=2) == []


def test_a_claim_makes_room_for_the_next(record, take):
    record.add(*ranges(10))
    rung = take()
    for shard_id in rung[:3]:
        record.claim(shard_id)
    assert len(take()) == 3


def test_a_shard_not_claimed_by_the_deadline_is_rung_for_again(record, take):
    _, shard_id = record.add()
    assert take() == [shard_id]
    assert take() == []
    assert take(deadline_s=0) == [shard_id]
    assert record.shard(shard_id).dispatch_no == 2


def test_a_released_shard_is_rung_for_at_once(record, take):
    _, shard_id = record.add()
    take()
    record.release(record.claim(shard_id))
    assert take() == [shard_id]


def test_a_shard_that_must_wait_is_not_rung_for(record, take):
    _, shard_id = record.add()
    record.release(record.claim(shard_id), backoff_s=1000)
    assert take() == []


def test_shards_of_ended_jobs_are_not_rung_for(record, take):
    job_id, *_ = record.add(*ranges(3))
    record.cancel(job_id)
    assert take() == []


def test_a_higher_priority_goes_first(record, take):
    record.add(*ranges(4))
    _, *urgent = record.add(*ranges(2), priority=5)
    assert take()[:2] == urgent


def test_jobs_take_turns(record, take):
    _, *first = record.add(*ranges(5))
    _, *second = record.add(*ranges(5))
    assert take() == [first[0], second[0], first[1], second[1]]


def test_a_batch_of_jobs_takes_turns_like_a_single_job(record, take):
    batch = record.run(batches.add, 3)
    together = [record.add(batch_id=batch.id)[1] for _ in range(3)]
    record.run(batches.complete, batch.id)
    _, *alone = record.add(*ranges(3))
    assert take() == [together[0], alone[0], together[1], alone[1]]


def test_a_job_with_running_shards_lets_others_go_first(record, take):
    _, *busy = record.add(*ranges(6))
    for shard_id in busy[:3]:
        record.claim(shard_id)
    _, *waiting = record.add(*ranges(3))
    assert take() == [waiting[0], waiting[1], waiting[2], busy[3]]
