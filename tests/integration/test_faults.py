"""What happens when a part dies, hangs, forgets or is restarted while jobs are under way."""

import os
import signal
from pathlib import Path

import pytest
import redis
from sqlalchemy import select

from db import artifacts, jobs, models, shards
from db.tables import Attempt
from tests.integration.conftest import PATIENCE_S
from worker.broker.app import KEY_PREFIX, QUEUE, celery_app

ONE_BY_ONE = {"micro_batch": 1}


def running(plant, job):
    """Whether a worker is making samples of the job right now."""
    progress = plant.job(job.id).progress
    return progress.get("done", 0) > 0


def attempts(plant, job):
    """Outcomes of all attempts at the job's shards, oldest first."""
    with plant.services.database.read() as session:
        ids = [shard.id for shard in jobs.shards_of(session, job.id)]
        query = select(Attempt).where(Attempt.shard_id.in_(ids)).order_by(Attempt.started_at)
        return [attempt.outcome for attempt in session.scalars(query)]


def shard(plant, job):
    with plant.services.database.read() as session:
        return jobs.shards_of(session, job.id)[0]


def weights(plant, reference):
    with plant.services.database.read() as session:
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


def test_twenty_jobs_that_wait_survive_the_loss_of_all_of_redis(plant, tiny) -> None:
    waiting = [plant.generate(2, seed=n).id for n in range(20)]
    redis.Redis.from_url(plant.settings.broker_client).flushall()
    plant.worker()
    plant.succeed(*waiting)


def test_a_flush_every_moment_only_delays(plant, tiny) -> None:
    client = redis.Redis.from_url(plant.settings.broker_client)
    waiting = [plant.generate(2, seed=n).id for n in range(3)]
    plant.worker()

    def done():
        client.flushall()
        return all(plant.job(i).status == "succeeded" for i in waiting)

    plant.wait("all jobs", done)


def test_a_killed_workers_shard_is_made_again_with_the_same_samples(plant, tiny) -> None:
    job = plant.generate(50, shard_size=25, params=ONE_BY_ONE)
    with plant.held():
        victim = plant.worker()
        plant.wait("samples", lambda: running(plant, job))
        os.killpg(victim.pid, signal.SIGKILL)
    same = plant.generate(50, shard_size=50, params=ONE_BY_ONE)
    plant.worker()
    plant.succeed(job.id, same.id)
    assert "lost" in attempts(plant, job)
    assert plant.digests(job.id) == plant.digests(same.id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=lambda n: n.name)
def test_a_signal_gives_a_shard_back_and_burns_no_attempt(plant, tiny, number) -> None:
    job = plant.generate(50, params=ONE_BY_ONE)
    with plant.held():
        process = plant.worker()
        plant.wait("samples", lambda: running(plant, job))
        os.killpg(process.pid, number)  # as a terminal or systemd sends it: to the child too
        assert process.wait(timeout=PATIENCE_S) == 0
    assert attempts(plant, job) == ["released"]
    released = shard(plant, job)
    assert (released.status, released.releases, released.failures) == ("queued", 1, 0)


def test_a_drained_training_goes_on_and_ends_with_the_same_weights(plant, digits) -> None:
    job = plant.train(max_steps=20)
    with plant.held():
        process = plant.worker()
        plant.wait("steps", lambda: running(plant, job))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 0
    assert attempts(plant, job) == ["released"]
    with plant.services.database.read() as session:
        assert shards.latest_checkpoint(session, jobs.shards_of(session, job.id)[0].id)
    plant.worker()
    straight = plant.train(max_steps=20)
    plant.succeed(job.id, straight.id)
    assert attempts(plant, job) == ["released", "succeeded"]
    assert weights(plant, "small:1") == weights(plant, "small:2")


def test_a_killed_child_is_replaced_and_its_shard_made_again(plant, tiny) -> None:
    job = plant.generate(50, params=ONE_BY_ONE)
    with plant.held():
        process = plant.worker()
        plant.wait("samples", lambda: running(plant, job))
        (child,) = children(process.pid)
        os.kill(child, signal.SIGKILL)
    plant.succeed(job.id)
    assert attempts(plant, job) == ["lost", "succeeded"]
    assert process.poll() is None


def test_a_killed_parent_takes_its_child_along(plant, tiny) -> None:
    process = plant.worker()
    plant.succeed(plant.generate(1).id)
    (child,) = children(process.pid)
    process.kill()
    process.wait()
    plant.wait("the child's end", lambda: not alive(child), dispatch=False)


def test_a_zombies_samples_are_refused(plant, tiny) -> None:
    job = plant.generate(50, params=ONE_BY_ONE)
    with plant.held():
        process = plant.worker()
        plant.wait("samples", lambda: running(plant, job))
        os.killpg(process.pid, signal.SIGSTOP)
    plant.worker()
    plant.succeed(job.id)
    os.killpg(process.pid, signal.SIGCONT)
    again = plant.generate(2)
    plant.succeed(again.id)
    assert sorted(attempts(plant, job)) == ["lost", "succeeded"]
    with plant.services.database.read() as session:
        assert len(artifacts.of_job(session, job.id)) == 1


@pytest.mark.parametrize(
    ("point", "outcomes"), [("put_after", ["lost", "succeeded"]), ("committed", ["succeeded"])]
)
def test_a_worker_that_dies_around_its_commit_leaves_one_artifact(
    plant, tiny, point, outcomes
) -> None:
    job = plant.generate(5)
    assert plant.worker(failpoint=point).wait(timeout=PATIENCE_S) == -signal.SIGKILL
    plant.worker()
    plant.succeed(job.id)
    assert attempts(plant, job) == outcomes
    with plant.services.database.read() as session:
        assert len(artifacts.of_job(session, job.id)) == 1


def test_a_worker_whose_device_is_not_here_says_so_and_ends(plant) -> None:
    assert plant.worker(device="cuda:7").wait(timeout=PATIENCE_S) == 2
    assert "no device 'cuda:7'" in plant.logs()


def test_two_workers_share_a_job(plant, tiny) -> None:
    job = plant.generate(50, shard_size=25, params=ONE_BY_ONE)
    with plant.held():
        plant.worker()
        plant.worker()
        plant.wait("two at work", lambda: len(attempts(plant, job)) == 2)
    plant.succeed(job.id)
    with plant.services.database.read() as session:
        ids = [each.id for each in jobs.shards_of(session, job.id)]
        owners = set(session.scalars(select(Attempt.worker).where(Attempt.shard_id.in_(ids))))
    assert len(owners) == 2


def test_doorbells_that_make_no_sense_are_dropped(plant, tiny) -> None:
    process = plant.worker()
    app = celery_app(plant.settings)
    app.send_task("genmill.work", args=["../../etc/passwd"], queue=QUEUE)
    app.send_task("genmill.work", args=["01a203d4-cc8f-7501-9719-6017283c9be0"], queue=QUEUE)
    app.send_task("genmill.work", kwargs={"shard_id": 1, "more": 2}, queue=QUEUE)
    app.send_task("celery.backend_cleanup", queue=QUEUE)
    app.send_task("os.system", args=["true"], queue=QUEUE, serializer="json")
    plant.succeed(plant.generate(2).id)
    assert process.poll() is None


def test_what_is_no_message_at_all_costs_neither_the_worker_nor_its_shard(plant, tiny) -> None:
    client = redis.Redis.from_url(plant.settings.broker_client)
    job = plant.generate(50, params=ONE_BY_ONE)
    with plant.held():
        process = plant.worker()
        plant.wait("samples", lambda: running(plant, job))
        for garbage in (b"{", b"[]", b"[" * 100_000):
            client.lpush(f"{KEY_PREFIX}{QUEUE}", garbage)
    plant.succeed(job.id, plant.generate(2).id)
    assert attempts(plant, job) == ["succeeded"]
    assert process.poll() is None
    assert client.llen(f"{KEY_PREFIX}{QUEUE}") == 0
