"""Losses of a training that gets on are forgotten; those of anything else add up to poison."""

import pytest

from db import shards
from tests.unit.db.test_checkpoints import save

EXPIRED = -1
LIMIT = 3


def lose(record, shard_id, *steps):
    """A claim that stores checkpoints of these steps and is lost; whether it goes back."""
    claim = record.claim(shard_id, lease_s=EXPIRED, max_claims=LIMIT)
    for step in steps:
        save(record, claim, step)
    return record.run(shards.reap, max_claims=LIMIT) == [shard_id]


@pytest.fixture
def training(each_record):
    job_id, shard_id = each_record.add((0, 1), kind="train")
    return each_record, job_id, shard_id


def test_a_training_that_gets_on_each_time_is_never_poison(training):
    record, job_id, shard_id = training
    for day in range(1, 4 * LIMIT):
        assert lose(record, shard_id, 10 * day, 10 * day + 1)
    assert record.job(job_id).status == "running"


def test_a_training_that_gets_no_further_is_poison(training):
    record, job_id, shard_id = training
    assert lose(record, shard_id)
    assert lose(record, shard_id, 10)
    for _ in range(LIMIT - 2):  # the one that stored it counts
        assert lose(record, shard_id)
    assert not lose(record, shard_id)
    assert record.job(job_id).error == f"poison: its workers stopped reporting {LIMIT} times"


def test_a_checkpoint_of_a_step_that_was_reached_before_is_no_progress(training):
    record, job_id, shard_id = training
    assert lose(record, shard_id, 10)
    record.run(shards.mark_bad, shard_id, 10)
    for _ in range(LIMIT - 2):
        assert lose(record, shard_id, 10)
    assert not lose(record, shard_id, 10)
    assert record.job(job_id).status == "failed"


def test_a_training_that_gets_on_may_be_taken_over_from_a_dead_worker(training):
    record, _, shard_id = training
    for step in range(2 * LIMIT):
        claim = record.claim(shard_id, lease_s=EXPIRED, max_claims=LIMIT)
        save(record, claim, step)
    for _ in range(LIMIT - 1):
        assert record.claim(shard_id, lease_s=EXPIRED, max_claims=LIMIT)
    assert record.claim(shard_id, lease_s=EXPIRED, max_claims=LIMIT) is None


def test_a_checkpoint_that_comes_late_saves_a_training_from_the_reaper(training, monkeypatch):
    record, job_id, shard_id = training
    for _ in range(LIMIT - 1):
        lose(record, shard_id)
    late = record.claim(shard_id, lease_s=EXPIRED, max_claims=LIMIT)
    looked = []

    def is_poison(session, shard, max_claims):
        found = real(session, shard, max_claims)
        if not looked:  # between the first look and the locks
            shards.add_checkpoint(session, late, step=5, key="k", sha256="a" * 64, size=1)
        looked.append(found)
        return found

    from db import reaping

    real = reaping.is_poison
    monkeypatch.setattr(reaping, "is_poison", is_poison)
    assert record.run(shards.reap, max_claims=LIMIT) == [shard_id]
    assert looked == [True, False]
    assert record.job(job_id).status == "running"
