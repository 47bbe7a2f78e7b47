"""Checkpoints on record."""

import pytest
from sqlalchemy import update

from db import artifacts, shards
from db.errors import Cancelled, LeaseLost
from db.tables import Job


@pytest.fixture
def training(record):
    job_id, shard_id = record.add((0, 1), kind="train")
    return job_id, shard_id, record.claim(shard_id)


def save(record, claim, step):
    digest = f"{step:064x}"
    key = f"jobs/{claim.job_id}/blobs/{digest}"
    record.run(shards.add_checkpoint, claim, step=step, key=key, sha256=digest, size=9)
    return key


def latest(record, shard_id):
    found = record.run(shards.latest_checkpoint, shard_id)
    return found and found.step


def test_a_shard_without_checkpoints_has_none(record, training):
    assert latest(record, training[1]) is None


def test_the_newest_two_are_kept(record, training):
    job_id, shard_id, claim = training
    keys = [save(record, claim, step) for step in (10, 20, 30)]
    assert latest(record, shard_id) == 30
    assert record.run(artifacts.referenced_keys, job_id) == set(keys[1:])


def test_after_a_bad_one_the_one_before_is_used(record, training):
    _, shard_id, claim = training
    save(record, claim, 10)
    save(record, claim, 20)
    record.run(shards.mark_bad, shard_id, 20)
    assert latest(record, shard_id) == 10


def test_a_bad_one_does_not_count_as_one_of_the_two(record, training):
    _, shard_id, claim = training
    for step in (10, 20):
        save(record, claim, step)
    record.run(shards.mark_bad, shard_id, 20)
    save(record, claim, 30)
    record.run(shards.mark_bad, shard_id, 30)
    assert latest(record, shard_id) == 10


def test_a_step_reached_again_after_a_bad_one_is_good(record, training):
    _, shard_id, claim = training
    save(record, claim, 10)
    record.run(shards.mark_bad, shard_id, 10)
    save(record, claim, 10)
    assert latest(record, shard_id) == 10


def test_a_later_claim_that_began_anew_keeps_its_own_although_they_have_lower_steps(
    record, training
):
    _, shard_id, claim = training
    for step in (100, 200):
        save(record, claim, step)
    record.release(claim)
    heir = record.claim(shard_id, owner="bob")
    save(record, heir, 5)
    assert latest(record, shard_id) == 5
    save(record, heir, 7)
    record.run(shards.mark_bad, shard_id, 7)
    assert latest(record, shard_id) == 5


def line(record, job_id):
    return [each.step for each in record.run(shards.checkpoints_of_line, job_id)]


def test_a_retry_finds_the_checkpoints_of_its_whole_line(record, training):
    job_id, _, claim = training
    save(record, claim, 10)
    save(record, claim, 20)
    record.fail(claim, final=True)
    second, *_ = record.add((0, 1), kind="train", retry_of=job_id)
    record.cancel(second)  # before it had one of its own
    third, shard_id = record.add((0, 1), kind="train", retry_of=second)
    assert line(record, third) == [20, 10]
    save(record, record.claim(shard_id), 15)
    assert line(record, third) == [15, 20, 10]
    assert line(record, second) == [20, 10]


def test_a_line_that_bites_its_tail_ends(record, training):
    job_id, _, claim = training
    save(record, claim, 10)
    second, *_ = record.add((0, 1), kind="train", retry_of=job_id)
    with record.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(retry_of=second))
    assert line(record, second) == [10]


def test_a_zombies_checkpoint_is_refused(record, training):
    _, shard_id, claim = training
    record.release(claim)
    heir = record.claim(shard_id, owner="bob")
    with pytest.raises(LeaseLost):
        save(record, claim, 99)
    save(record, heir, 10)
    assert latest(record, shard_id) == 10


def test_no_checkpoint_follows_a_cancellation(record, training):
    job_id, _, claim = training
    record.cancel(job_id)
    with pytest.raises(Cancelled):
        save(record, claim, 10)


def test_a_checkpoint_outlives_the_claim_that_made_it(record, training):
    _, shard_id, claim = training
    save(record, claim, 10)
    record.release(claim)
    assert latest(record, shard_id) == 10


def test_a_succeeded_shard_keeps_no_checkpoints(record, training):
    job_id, shard_id, claim = training
    save(record, claim, 10)
    record.run(shards.commit, claim, [])
    assert latest(record, shard_id) is None
    assert record.run(artifacts.referenced_keys, job_id) == set()
