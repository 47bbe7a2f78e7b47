"""A process, a broker or a device fails while jobs are under way."""

import json
import os
import signal
from pathlib import Path

import pytest
import redis

from db import artifacts, jobs, models, shards
from scheduler.dispatch.garbage import collect_packs
from scheduler.results.verify import verify
from tests.attempts import attempts_at
from tests.integration.conftest import PATIENCE_S
from worker.broker.app import KEY_PREFIX, QUEUE, celery_app

ONE_BY_ONE = {"micro_batch": 1}
LONG_S = 3600  # a lease that no test waits for


def running(deployment, job):
    """Whether a worker is making samples of the job right now."""
    return deployment.progress(job.id).get("done", 0) > 0


def attempts(deployment, job):
    """Outcomes of all attempts at the job's shards, oldest first."""
    with deployment.services.database.read() as session:
        ids = [shard.id for shard in jobs.shards_of(session, job.id)]
        rows = [row for shard_id in ids for row in attempts_at(session, shard_id)]
    return [row["outcome"] for row in sorted(rows, key=lambda row: row["started_at"])]


def shard(deployment, job):
    with deployment.services.database.read() as session:
        return jobs.shards_of(session, job.id)[0]


def weights(deployment, reference):
    with deployment.services.database.read() as session:
        return models.resolve(session, reference)[1].weights_sha256


def children(pid):
    """Process ids of the direct children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_twenty_queued_jobs_survive_the_loss_of_all_of_redis(deployment, tiny) -> None:
    waiting = [deployment.generate(2, seed=n).id for n in range(20)]
    redis.Redis.from_url(deployment.settings.broker_client).flushall()
    deployment.worker()
    deployment.succeed(*waiting)


@pytest.mark.slow
def test_jobs_succeed_while_redis_is_flushed_all_the_time(deployment, tiny) -> None:
    client = redis.Redis.from_url(deployment.settings.broker_client)
    waiting = [deployment.generate(2, seed=n).id for n in range(3)]
    deployment.worker()

    def done():
        client.flushall()
        return all(deployment.job(i).status == "succeeded" for i in waiting)

    deployment.wait("all jobs", done)


def test_the_shard_of_a_killed_worker_is_made_again_with_the_same_samples(deployment, tiny) -> None:
    job = deployment.generate(50, shard_size=25, params=ONE_BY_ONE)
    with deployment.held():
        victim = deployment.worker(lease_s=LONG_S)
        deployment.wait("samples", lambda: running(deployment, job))
        os.killpg(victim.pid, signal.SIGKILL)
    same = deployment.generate(50, shard_size=50, params=ONE_BY_ONE)
    deployment.worker()
    deployment.succeed(job.id, same.id)
    assert "lost" in attempts(deployment, job)
    assert deployment.digests(job.id) == deployment.digests(same.id)


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGQUIT, marks=pytest.mark.slow)],
    ids=lambda n: n.name,
)
def test_a_worker_told_to_stop_releases_its_shard_and_no_failure_is_counted(
    deployment, tiny, number
) -> None:
    job = deployment.generate(50, params=ONE_BY_ONE)
    with deployment.held():
        process = deployment.worker()
        deployment.wait("samples", lambda: running(deployment, job))
        os.killpg(process.pid, number)  # as a terminal or systemd sends it: to the child too
        assert process.wait(timeout=PATIENCE_S) == 0
    assert attempts(deployment, job) == ["released"]
    released = shard(deployment, job)
    assert (released.status, released.releases, released.failures) == ("queued", 1, 0)


@pytest.mark.slow
def test_a_drained_training_resumes_and_ends_with_the_same_weights(deployment, digits) -> None:
    job = deployment.train(max_steps=20)
    with deployment.held():
        process = deployment.worker()
        deployment.wait("steps", lambda: running(deployment, job))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 0
    assert attempts(deployment, job) == ["released"]
    with deployment.services.database.read() as session:
        assert shards.latest_checkpoint(session, jobs.shards_of(session, job.id)[0].id)
    deployment.worker()
    straight = deployment.train(max_steps=20)
    deployment.succeed(job.id, straight.id)
    assert attempts(deployment, job) == ["released", "succeeded"]
    assert weights(deployment, "small:1") == weights(deployment, "small:2")


@pytest.mark.slow
def test_a_killed_child_is_replaced_and_its_shard_made_again(deployment, tiny) -> None:
    job = deployment.generate(50, params=ONE_BY_ONE)
    with deployment.held():
        process = deployment.worker(lease_s=LONG_S)
        deployment.wait("samples", lambda: running(deployment, job))
        (child,) = children(process.pid)
        os.kill(child, signal.SIGKILL)
    deployment.succeed(job.id)
    assert attempts(deployment, job) == ["lost", "succeeded"]
    assert process.poll() is None


def test_a_child_ends_when_its_parent_is_killed(deployment, tiny) -> None:
    process = deployment.worker()
    deployment.succeed(deployment.generate(1).id)
    (child,) = children(process.pid)
    process.kill()
    process.wait()
    deployment.wait("the child's end", lambda: not alive(child), dispatch=False)


@pytest.mark.slow
def test_samples_of_a_worker_that_lost_its_lease_are_refused(deployment, tiny) -> None:
    job = deployment.generate(50, params=ONE_BY_ONE)
    with deployment.held():
        process = deployment.worker()
        deployment.wait("samples", lambda: running(deployment, job))
        os.killpg(process.pid, signal.SIGSTOP)
    deployment.worker()
    deployment.succeed(job.id)
    os.killpg(process.pid, signal.SIGCONT)
    again = deployment.generate(2)
    deployment.succeed(again.id)
    assert sorted(attempts(deployment, job)) == ["lost", "succeeded"]
    with deployment.services.database.read() as session:
        assert len(artifacts.of_job(session, job.id)) == 1


@pytest.mark.parametrize(
    ("point", "outcomes"), [("put_after", ["lost", "succeeded"]), ("committed", ["succeeded"])]
)
def test_a_worker_that_dies_around_its_commit_leaves_one_artifact(
    deployment, tiny, point, outcomes
) -> None:
    job = deployment.generate(5)
    assert deployment.worker(failpoint=point).wait(timeout=PATIENCE_S) == -signal.SIGKILL
    deployment.worker()
    deployment.succeed(job.id)
    assert attempts(deployment, job) == outcomes
    with deployment.services.database.read() as session:
        assert len(artifacts.of_job(session, job.id)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("point", ["put_after", "committed"])
def test_a_worker_that_dies_around_the_commit_of_many_jobs_leaves_each_once(
    deployment, tiny, point
) -> None:
    line = {"kind": "generate", "model": tiny, "count": 1}
    batch = deployment.enqueue_batch([json.dumps(line | {"seed": n}) for n in range(6)])
    with deployment.services.database.read() as session:
        made = [job.id for job in jobs.listing(session, batch=batch.id)]
    assert deployment.worker(failpoint=point).wait(timeout=PATIENCE_S) == -signal.SIGKILL
    deployment.worker()
    deployment.succeed(*made)
    with deployment.services.database.read() as session:
        stored = {job_id: artifacts.of_job(session, job_id) for job_id in made}
    assert {len(each) for each in stored.values()} == {1}
    assert any(each.packed for [each] in stored.values())
    for job_id in made:
        assert verify(deployment.services, deployment.job(job_id)).problems == []
    collect_packs(deployment.services, older_than_s=-1)  # those of attempts that were lost
    kept = {each.key for [each] in stored.values() if each.packed}
    manifests = {
        job.packed_manifest.key for job in map(deployment.job, made) if job.packed_manifest
    }
    assert set(deployment.services.store.keys("packs")) == kept | manifests
    for job_id in made:
        assert verify(deployment.services, deployment.job(job_id)).problems == []


def test_a_worker_without_its_device_says_so_and_ends(deployment) -> None:
    assert deployment.worker(device="cuda:7").wait(timeout=PATIENCE_S) == 2
    assert "no device 'cuda:7'" in deployment.logs()


def test_a_worker_whose_boot_fails_ends_with_the_reason_and_returns_its_doorbell(
    deployment, tiny
) -> None:
    deployment.generate(1)
    client = redis.Redis.from_url(deployment.settings.broker_client)
    assert client.llen(f"{KEY_PREFIX}{QUEUE}") == 1
    assert deployment.worker(threads=10**12).wait(timeout=PATIENCE_S) == 1  # more than torch takes
    assert "the worker cannot start: " in deployment.logs()
    assert client.llen(f"{KEY_PREFIX}{QUEUE}") == 1


def test_two_workers_share_a_job(deployment, tiny) -> None:
    job = deployment.generate(50, shard_size=25, params=ONE_BY_ONE)
    with deployment.held():
        deployment.worker()
        deployment.worker()
        deployment.wait("two at work", lambda: len(attempts(deployment, job)) == 2)
    deployment.succeed(job.id)
    with deployment.services.database.read() as session:
        owners = {each.owner for each in jobs.shards_of(session, job.id)}
    assert len(owners) == 2


@pytest.mark.slow
def test_malformed_doorbells_are_dropped(deployment, tiny) -> None:
    process = deployment.worker()
    app = celery_app(deployment.settings)
    app.send_task("genmill.work", args=["../../etc/passwd"], queue=QUEUE)
    app.send_task("genmill.work", args=["01a203d4-cc8f-7501-9719-6017283c9be0"], queue=QUEUE)
    app.send_task("genmill.work", kwargs={"shard_id": 1, "more": 2}, queue=QUEUE)
    app.send_task("celery.backend_cleanup", queue=QUEUE)
    app.send_task("os.system", args=["true"], queue=QUEUE, serializer="json")
    deployment.succeed(deployment.generate(2).id)
    assert process.poll() is None


def test_garbage_in_the_queue_costs_neither_the_worker_nor_its_shard(deployment, tiny) -> None:
    client = redis.Redis.from_url(deployment.settings.broker_client)
    job = deployment.generate(50, params=ONE_BY_ONE)
    with deployment.held():
        process = deployment.worker()
        deployment.wait("samples", lambda: running(deployment, job))
        for garbage in (b"{", b"[]", b"[" * 100_000):
            client.lpush(f"{KEY_PREFIX}{QUEUE}", garbage)
    deployment.succeed(job.id, deployment.generate(2).id)
    assert attempts(deployment, job) == ["succeeded"]
    # the second job needs no doorbell: the worker claims it when it has finished the first
    deployment.wait("an empty queue", lambda: not client.llen(f"{KEY_PREFIX}{QUEUE}"))
    assert process.poll() is None
