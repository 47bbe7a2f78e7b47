"""What must hold for concurrent connections, on SQLite and on PostgreSQL."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import datasets, jobs, models, schedules, shards, workers
from db.errors import Cancelled, LeaseLost
from db.session import clock
from db.tables import Artifact, Attempt, Shard

EXPIRED = -1


@pytest.fixture
def record(each_record):
    return each_record


def test_of_many_concurrent_claims_one_gets_the_shard(record):
    _, *ids = record.add(*((i, i + 1) for i in range(8)))
    for shard_id in ids:
        claimers = [(record.claim, shard_id, who) for who in "abcd"]
        claims = [claim for claim in record.together(*claimers) if claim is not None]
        assert len(claims) == 1
        assert record.shard(shard_id).owner == claims[0].owner
        assert record.shard(shard_id).fence == 1


def test_of_many_takeovers_of_an_expired_lease_one_succeeds(record):
    _, shard_id = record.add()
    zombie = record.claim(shard_id, owner="zombie", lease_s=EXPIRED)
    takers = [(record.claim, shard_id, who) for who in "abcd"]
    outcomes = record.together(*takers, (record.commit, zombie))
    *claims, committed = outcomes
    taken = [claim for claim in claims if claim is not None]
    assert len(taken) + (committed is None) == 1  # either the zombie was in time or one took over
    assert record.shard(shard_id).status == ("succeeded" if committed is None else "running")


def test_two_last_shards_that_finish_at_once_move_the_job_on(record):
    for _ in range(10):
        job_id, *ids = record.add((0, 1), (1, 2))
        claims = [record.claim(shard_id) for shard_id in ids]
        outcomes = record.together(*((record.commit, claim) for claim in claims))
        assert outcomes == [None, None]
        assert record.job(job_id).status == "finalizing"


def test_a_last_shard_waits_for_another_that_is_about_to_commit(record):
    job_id, first, second = record.add((0, 1), (1, 2))
    ours, other = record.claim(first), record.claim(second)
    with ThreadPoolExecutor(1) as thread:
        with record.database.write() as session:
            shards.commit(session, ours, record.samples_of(ours))
            waiting = thread.submit(record.commit, other)
        waiting.result()
    assert record.job(job_id).status == "finalizing"


def test_a_commit_after_a_cancellation_is_refused(record):
    job_id, shard_id = record.add()
    claim = record.claim(shard_id)
    with ThreadPoolExecutor(1) as thread:
        with record.database.write() as session:
            assert jobs.cancel(session, job_id)
            waiting = thread.submit(record.commit, claim)
        assert isinstance(waiting.exception(), Cancelled)
    assert record.run(jobs.counts)["cancelled"] == 1
    assert record.run(lambda s: s.scalar(select(func.count()).select_from(Artifact))) == 0


def test_concurrent_commit_and_cancellation_leave_one_final_state(record):
    seen = Counter()
    for _ in range(20):
        job_id, shard_id = record.add((0, 2))
        claim = record.claim(shard_id)
        committed, cancelled = record.together((record.commit, claim), (record.cancel, job_id))
        job, shard = record.job(job_id), record.shard(shard_id)
        # a finalizing job can still be cancelled: its committed samples stay
        assert cancelled is True
        assert job.status == "cancelled"
        if isinstance(committed, Cancelled):
            assert shard.status == "cancelled"
        else:
            assert (committed, shard.status) == (None, "succeeded")
        seen[shard.status] += 1
    assert seen.total() == 20


def test_a_concurrent_heartbeat_and_reaper_agree(record):
    for _ in range(10):
        _, shard_id = record.add()
        claim = record.claim(shard_id, lease_s=EXPIRED)
        renewed, reaped = record.together((record.renew, claim), (record.run, shards.reap))
        if renewed is None:
            assert reaped == []
            assert record.shard(shard_id).status == "running"
        else:
            assert isinstance(renewed, LeaseLost)
            assert reaped == [shard_id]
        record.run(jobs.cancel, claim.job_id)


def test_four_concurrent_reapers_requeue_each_shard_once(record):
    ids = []
    for _ in range(5):
        _, *some = record.add((0, 1), (1, 2))
        ids += some
    for shard_id in ids:
        record.claim(shard_id, lease_s=EXPIRED)
    outcomes = record.together(*[(record.run, shards.reap)] * 4)
    assert sorted(chain(*outcomes)) == sorted(ids)
    assert {record.shard(i).claims for i in ids} == {1}


def test_concurrent_dispatchers_never_take_the_same_shard(record):
    _, *ids = record.add(*((i, i + 1) for i in range(40)))
    for i in range(10):
        record.run(workers.start, boot_id=f"boot-{i}", host="h", pid=1, device="cpu")

    def take():
        return record.run(shards.take_due, per_worker=4, deadline_s=60)

    outcomes = record.together(*[(take,)] * 4)
    taken = Counter(chain(*outcomes))
    assert set(taken.values()) == {1}
    assert set(taken) <= set(ids)
    assert {record.shard(i).dispatch_no for i in taken} == {1}


def test_a_dispatcher_skips_shards_that_another_is_taking(record):
    record.add(*((i, i + 1) for i in range(12)))
    for i in range(6):
        record.run(workers.start, boot_id=f"boot-{i}", host="h", pid=1, device="cpu")
    with ThreadPoolExecutor(1) as thread:
        with record.database.write() as session:
            first = shards.take_due(session, per_worker=1, deadline_s=60)
            other = thread.submit(record.run, shards.take_due, per_worker=1, deadline_s=60)
            time.sleep(0.2)  # lets the other look; the outcome is the same if it comes too late
        second = other.result()
    assert len(first) == 6
    assert not set(first) & set(second)


def test_versions_added_concurrently_get_distinct_numbers(record):
    def add():
        return record.run(
            models.add_version,
            name="digits",
            family="gan",
            params={},
            files={},
            weights_sha256="a" * 64,
            metrics={},
        ).number

    assert sorted(record.together(*[(add,)] * 4)) == [1, 2, 3, 4]


def test_the_same_dataset_added_concurrently_is_one_version(record):
    def add():
        return record.run(
            datasets.add_version,
            name="mnist",
            kind="image",
            manifest_key="datasets/m",
            manifest_sha256="a" * 64,
            summary={},
        ).id

    assert len(set(record.together(*[(add,)] * 4))) == 1


def add_schedule(record):
    due = record.run(clock)
    words = {"name": "nightly", "cron": "0 3 * * *", "timezone": "UTC", "command": ["enqueue"]}
    rules = {"missed": "skip", "overlap": "skip"}
    return record.run(schedules.add, next_due=due, **words, **rules).id, due


def test_two_schedulers_fire_a_due_time_once(record):
    schedule_id, due = add_schedule(record)

    def fire():
        return record.run(schedules.record_run, schedule_id, due, outcome="fired")

    assert sorted(record.together(*[(fire,)] * 4)) == [False, False, False, True]


def test_a_second_scheduler_fires_if_the_first_rolled_back(record):
    schedule_id, due = add_schedule(record)

    with ThreadPoolExecutor(1) as thread, Session(record.database._writer) as session:
        assert schedules.record_run(session, schedule_id, due, outcome="fired")
        second = thread.submit(record.run, schedules.record_run, schedule_id, due, outcome="fired")
        session.rollback()
        assert second.result() is True


def test_workers_on_one_job_finish_every_shard_once(record):
    job_id, *ids = record.add(*((i, i + 1) for i in range(30)))

    def work(who):
        for shard_id in ids:
            claim = record.claim(shard_id, owner=who)
            if claim:
                record.renew(claim, progress={"done": 1})
                record.commit(claim)

    assert record.together(*((work, who) for who in "abcd")) == [None] * 4
    assert record.job(job_id).status == "finalizing"
    assert record.progress(job_id)["done"] == 30
    rows = record.run(lambda s: s.scalar(select(func.count()).select_from(Attempt)))
    assert rows == 0
    assert record.run(lambda s: s.scalar(select(func.max(Shard.fence)))) == 1
