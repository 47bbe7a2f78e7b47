"""Which shards to ring for, and in which order."""

import time
from functools import partial

import pytest

from db import batches, shards, workers
from db.due import share


@pytest.fixture
def take(record):
    def take(*, per_worker=4, deadline_s=60, waiting=0):
        how = {"per_worker": per_worker, "deadline_s": deadline_s, "waiting": waiting}
        return record.run(shards.take_due, **how)

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


def test_of_two_choosers_neither_takes_what_the_other_has_taken(record):
    record.add(*ranges(6))
    first = record.run(shards.claim_due, owner="ann", lease_s=60)
    second = record.run(shards.claim_due, owner="bob", lease_s=60)
    assert [claim.idx for claim in first + second] == [0, 1]


def test_shards_that_were_rung_for_can_be_claimed_without_the_doorbell(record, take):
    record.add(*ranges(2))
    take()
    assert len(record.run(shards.claim_due, owner="ann", lease_s=60)) == 1


def test_many_shards_that_must_wait_hide_none_that_is_due(record, take):
    _, *back = record.add(*ranges(30))
    for shard_id in back[:29]:
        record.release(record.claim(shard_id), backoff_s=1000)
    assert take() == [back[29]]


def test_a_shard_whose_pause_has_passed_comes_first_again(record):
    _, first, _ = record.add(*ranges(2))
    record.release(record.claim(first), backoff_s=0.05)
    time.sleep(0.1)
    [claim] = record.run(shards.claim_due, owner="ann", lease_s=60)
    assert claim.shard_id == first


def test_small_shards_of_one_key_are_claimed_together_across_jobs_and_batches(record):
    together = [record.add((0, 1), work_key=7)[1] for _ in range(3)]
    record.add((0, 1), work_key=8)
    claims = record.run(shards.claim_due, owner="ann", lease_s=60, limit=10)
    assert [claim.shard_id for claim in claims] == together
    assert all(claim.alone for claim in claims)


def test_only_shards_of_one_key_are_claimed_and_none_where_another_goes_first(record):
    _, other = record.add((0, 1), work_key=8)
    _, mine, _ = record.add(*ranges(2), work_key=7)
    claim_due = partial(record.run, shards.claim_due, owner="ann", lease_s=60, only=7)
    assert claim_due() == []
    assert [claim.shard_id for claim in claim_due(prefer=[7])] == [mine]
    assert [claim.shard_id for claim in record.run(shards.claim_due, owner="ann", lease_s=60)] == [
        other
    ]
    record.add((0, 1), work_key=8, priority=1)
    assert claim_due(prefer=[7]) == []


def test_groups_take_turns_with_one_worker(record):
    groups = [record.add(*ranges(4), work_key=n)[0] for n in range(3)]
    served, order = {}, []
    for turn in range(1, 7):
        [claim] = record.run(shards.claim_due, owner="ann", lease_s=60, served=served)
        record.commit(claim)
        served[claim.group_id] = turn
        order.append(claim.group_id)
    assert order == groups * 2


def test_turns_are_shared_by_those_that_have_taken_least():
    assert share({"a": 0, "b": 2, "c": 0}, 7) == {"a": 3, "b": 1, "c": 3}
    assert share({}, 5) == {}


def test_doorbells_that_wait_in_the_broker_count_as_rung(record, take):
    record.add(*ranges(9))
    assert take(waiting=4) == []
    assert len(take(waiting=1)) == 3
