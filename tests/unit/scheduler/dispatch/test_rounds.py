"""A round of the scheduler: expired leases, finished jobs and doorbells."""

import time
from contextlib import ExitStack, closing

import pytest
import redis

from scheduler.dispatch import rounds
from scheduler.dispatch.rounds import reap, run_round
from tests.shards import add_job, claim, commit, read
from worker.services import Services


@pytest.fixture
def changed(services):
    """The same services with other settings: `changed(deadline_s=1)`."""
    with ExitStack() as opened:

        def open_with(**settings):
            other = Services(services.settings.model_copy(update=settings))
            return opened.enter_context(closing(other))

        yield open_with


def waiting(services):
    return redis.Redis.from_url(services.settings.broker_client).llen("genmill:genmill")


def test_queued_shards_are_rung_once_until_the_deadline(services) -> None:
    add_job(services)
    assert run_round(services).rung == 1
    assert run_round(services).rung == 0
    assert waiting(services) == 1


def test_a_lost_doorbell_is_rung_again_after_the_deadline(services, changed) -> None:
    impatient = changed(deadline_s=0.01)
    add_job(services)
    run_round(services)
    redis.Redis.from_url(services.settings.broker_client).flushall()
    time.sleep(0.05)
    assert run_round(impatient).rung == 1
    assert waiting(services) == 1


def test_redis_stays_small_whatever_waits(services) -> None:
    add_job(services, count=500)
    for _ in range(5):
        run_round(services)
    assert waiting(services) < 10


def test_an_expired_lease_is_taken_back_and_its_shard_rung(services) -> None:
    job = add_job(services)
    claim(services, job, lease_s=0.01)
    time.sleep(0.05)
    counts = run_round(services)
    assert (counts.reaped, counts.rung) == (1, 1)
    assert reap(services) == 0


def test_a_job_whose_shards_are_done_gets_its_manifest_and_succeeds(services) -> None:
    job = add_job(services)
    commit(services, claim(services, job))
    assert run_round(services).finalized == 1
    done = read(services, job)
    assert done.status == "succeeded"
    with services.store.open(done.manifest_key) as file:
        assert job.id.encode() in file.read()
    assert run_round(services).finalized == 0


def test_without_a_broker_jobs_are_still_finished_and_leases_taken_back(services, changed) -> None:
    deaf = changed(redis_url=None)  # and none was ever started here
    job = add_job(services)
    commit(services, claim(services, job))
    claim(services, add_job(services), lease_s=0.01)
    time.sleep(0.05)
    counts = run_round(deaf)
    assert (counts.reaped, counts.finalized, counts.rung) == (1, 1, 0)


def test_a_step_that_fails_in_any_way_keeps_no_other_from_running(services, monkeypatch) -> None:
    def broken(self, *_):
        raise FileNotFoundError("an object that went")

    job = add_job(services)
    claim(services, job, lease_s=0.01)
    time.sleep(0.05)
    monkeypatch.setattr(rounds, "finalize_due", broken)
    counts = run_round(services)
    assert (counts.reaped, counts.finalized, counts.rung) == (1, 0, 1)
