"""What finished jobs took, read from the record."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from db import models, past_jobs, shards
from db.past_jobs import _busy_s
from db.tables import Shard
from tests.shards import succeed

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def held(owner, first_s, last_s):
    began, ended = (NOON + timedelta(seconds=each) for each in (first_s, last_s))
    return Shard(owner=owner, started_at=began, ended_at=ended)


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([("a", 0, 3), ("a", 0, 3), ("a", 0, 3)], 3),  # together, in one pass
        ([("a", 0, 3), ("a", 2, 5)], 5),  # joined while it ran
        ([("a", 0, 3), ("b", 0, 3)], 6),  # by two workers
        ([("a", 0, 3), ("a", 60, 62)], 5),  # other work between them
    ],
)
def test_a_worker_is_busy_once_however_many_shards_it_holds(spans, seconds):
    assert _busy_s([held(*span) for span in spans]) == seconds
    assert _busy_s([Shard(owner="a")]) is None


def test_the_samples_of_a_job_and_their_bytes_are_counted(each_record):
    made = {"spec": {"params": {"micro_batch": 4}}, "work_key": 9}
    job_id, *ids = each_record.add((0, 3), (3, 5), **made)
    for shard_id in ids:
        each_record.commit(each_record.claim(shard_id))
    each_record.run(lambda s: s.execute(update(Shard).values(owner="ann")))
    assert each_record.run(past_jobs.generations, "digits") == []  # it is not finished
    finish(each_record, job_id)
    [found] = each_record.run(past_jobs.generations, "digits")
    assert found[:4] == (job_id, 9, 4, 5)
    assert found.size_bytes == 2 * 1024
    assert found.seconds is not None
    assert each_record.run(past_jobs.recent_models, 3) == ["digits"]
    assert each_record.run(past_jobs.generations, "others") == []


def test_a_training_tells_its_times_unless_it_was_interrupted(each_record):
    for interrupted in (False, True):
        job_id, shard_id = each_record.add((0, 1), kind="train", model="m")
        claim = each_record.claim(shard_id)
        if interrupted:
            each_record.release(claim, backoff_s=0)
            claim = each_record.claim(shard_id)
        each_record.run(add_version, job_id)
        each_record.run(shards.commit, claim, [])
        each_record.settle(job_id)
        finish(each_record, job_id)
    again, once = each_record.run(past_jobs.trainings, "gan")
    assert (again.seconds, once.seconds is None) == (None, False)
    assert (once.params, once.metrics, once.tuned, once.data_bytes) == (
        {"lr": 1},
        {"a": 2},
        False,
        0,
    )
    assert each_record.run(past_jobs.trainings, "vae") == []
    assert len(each_record.run(past_jobs.trainings)) == 2


def add_version(session, job_id):
    models.add_version(
        session, name="m", family="gan", params={"lr": 1}, files={}, weights_sha256="0" * 64,
        metrics={"a": 2}, job_id=job_id,
    )  # fmt: skip


def finish(record, job_id):
    assert record.run(succeed, job_id, "k", "0" * 64)
