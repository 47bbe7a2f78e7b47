"""A round of the dispatcher: expired leases, finished jobs, doorbells and garbage."""

import time
from contextlib import ExitStack, closing

import pytest
import redis

from db import jobs, shards
from scheduler.dispatch.rounds import collect, dispatch_once, reap
from worker.services import Services
from worker.settings import Settings


@pytest.fixture
def services(tmp_path, database_url, broker_url):
    opened = Services(
        Settings(_env_file=None, home=tmp_path, database_url=database_url, redis_url=broker_url)
    )
    yield opened
    opened.close()


@pytest.fixture
def changed(services):
    """The same services with other settings: `changed(deadline_s=1)`."""
    with ExitStack() as opened:

        def open_with(**settings):
            other = Services(services.settings.model_copy(update=settings))
            return opened.enter_context(closing(other))

        yield open_with


def add_job(services, *, count=1):
    def work(session):
        ranges = [(n, n + 1) for n in range(count)]
        return jobs.add(
            session, spec={}, spec_hash="0" * 64, kind="generate", model="m", ranges=ranges
        )

    return services.database.transact(work)


def claim(services, job, *, lease_s=60):
    def work(session):
        shard = jobs.shards_of(session, job.id)[0]
        return shards.claim(session, shard.id, owner="w", lease_s=lease_s)

    return services.database.transact(work)


def commit(services, held):
    blob = services.store.put_bytes(f"jobs/{held.job_id}/blobs", b"png")
    member = shards.NewMember(held.start, "0.png", 0, 3, "0" * 64)
    artifact = shards.NewArtifact(
        "samples", "s.tar", blob.key, blob.sha256, blob.size, "application/x-tar", [member]
    )
    services.database.transact(lambda session: shards.commit(session, held, [artifact]))


def read(services, job):
    with services.database.read() as session:
        return jobs.get(session, job.id)


def waiting(services):
    return redis.Redis.from_url(services.settings.broker_client).llen("genmill:genmill")


def test_queued_shards_are_rung_once_until_the_deadline(services) -> None:
    add_job(services)
    assert dispatch_once(services).rung == 1
    assert dispatch_once(services).rung == 0
    assert waiting(services) == 1


def test_a_lost_doorbell_is_rung_again_after_the_deadline(services, changed) -> None:
    impatient = changed(deadline_s=0.01)
    add_job(services)
    dispatch_once(services)
    redis.Redis.from_url(services.settings.broker_client).flushall()
    time.sleep(0.05)
    assert dispatch_once(impatient).rung == 1
    assert waiting(services) == 1


def test_redis_stays_small_whatever_waits(services) -> None:
    add_job(services, count=500)
    for _ in range(5):
        dispatch_once(services)
    assert waiting(services) < 10


def test_an_expired_lease_is_taken_back_and_its_shard_rung(services) -> None:
    job = add_job(services)
    claim(services, job, lease_s=0.01)
    time.sleep(0.05)
    counts = dispatch_once(services)
    assert (counts.reaped, counts.rung) == (1, 1)
    assert reap(services) == 0


def test_a_job_whose_shards_are_done_gets_its_manifest_and_succeeds(services) -> None:
    job = add_job(services)
    commit(services, claim(services, job))
    assert dispatch_once(services).finalized == 1
    done = read(services, job)
    assert done.status == "succeeded"
    with services.store.open(done.manifest_key) as file:
        assert job.id.encode() in file.read()
    assert dispatch_once(services).finalized == 0


def test_without_a_broker_jobs_are_still_finished_and_leases_taken_back(services, changed) -> None:
    deaf = changed(redis_url=None)  # and none was ever started here
    job = add_job(services)
    commit(services, claim(services, job))
    claim(services, add_job(services), lease_s=0.01)
    time.sleep(0.05)
    counts = dispatch_once(deaf)
    assert (counts.reaped, counts.finalized, counts.rung) == (1, 1, 0)


def test_what_the_record_does_not_name_is_collected_after_a_while(services) -> None:
    job = add_job(services)
    commit(services, claim(services, job))
    stray = services.store.put_bytes(f"jobs/{job.id}/blobs", b"of an attempt that was lost").key
    dispatch_once(services)
    assert collect(services) == 0  # it has only just ended
    assert collect(services, older_than_s=-1) == 1
    left = set(services.store.keys(f"jobs/{job.id}"))
    assert stray not in left
    assert read(services, job).manifest_key in left
    assert len(left) == 2
    assert collect(services, older_than_s=-1) == 0


def test_nothing_of_a_job_under_way_is_collected(services) -> None:
    job = add_job(services)
    services.store.put_bytes(f"jobs/{job.id}/blobs", b"about to be committed")
    claim(services, job)
    assert collect(services, older_than_s=-1) == 0
    assert len(list(services.store.keys(f"jobs/{job.id}"))) == 1
