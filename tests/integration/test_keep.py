"""Trainings that end early and keep their best weights, and retries of cancelled ones."""

from functools import partial

import pytest

from db import interventions, jobs, models, shards
from db.errors import NotFound
from tests.chaos.auditor import Auditor
from tests.integration.test_faults import attempts, running, weights

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("keep")]

ENDLESS = 10**6


def keep(deployment, job):
    return deployment.services.database.transact(partial(interventions.end_early, job_id=job.id))


def versions(deployment, name):
    with deployment.services.database.read() as session:
        try:
            model, _ = models.resolve(session, name)
        except NotFound:
            return []
        return models.versions(session, model)


@pytest.fixture
def auditor(deployment):
    """One that knows when the test began."""
    return Auditor(deployment.services, grace_s=60)


def test_a_training_told_to_keep_its_weights_makes_one_version(deployment, digits, auditor) -> None:
    deployment.worker()
    job = deployment.train(max_steps=ENDLESS)
    deployment.wait("steps", lambda: running(deployment, job))
    keep(deployment, job)
    deployment.succeed(job.id)
    (version,) = versions(deployment, "small")
    assert version.metrics["ended_early"] is True
    assert 1 <= version.metrics["steps"] < ENDLESS
    assert version.job_id == job.id
    assert auditor.audit() == []


@pytest.mark.parametrize("point", ["checkpoint_stored", "put_after", "flushed", "committed"])
def test_a_worker_that_dies_while_keeping_leaves_it_to_the_next(
    deployment, digits, auditor, point
) -> None:
    victim = deployment.worker(failpoint=f"{point}:sigkill", lease_s=3600)
    job = deployment.train(max_steps=ENDLESS)
    deployment.wait("steps", lambda: running(deployment, job))
    keep(deployment, job)
    deployment.wait("the worker's end", lambda: victim.poll() is not None)
    deployment.worker()
    deployment.succeed(job.id)
    (version,) = versions(deployment, "small")
    assert version.metrics["ended_early"] is True
    assert version.metrics["steps"] >= deployment.job(job.id).stop_after > 0
    assert len(attempts(deployment, job)) == (1 if point == "committed" else 2)
    assert auditor.audit() == []


def test_a_training_told_before_its_first_step_is_cancelled(deployment, digits, auditor) -> None:
    job = deployment.train(max_steps=ENDLESS)
    with deployment.services.database.write() as session:
        (shard,) = jobs.shards_of(session, job.id)
        claim = shards.claim(session, shard.id, owner="w", lease_s=60)
        shards.release(session, claim, "it went away")
    keep(deployment, job)
    deployment.worker()
    deployment.finish(job.id)
    assert deployment.job(job.id).status == "cancelled"
    assert versions(deployment, "small") == []
    assert auditor.audit() == []


def test_the_retry_of_a_cancelled_training_goes_on_and_ends_with_the_same_weights(
    deployment, digits, auditor
) -> None:
    job = deployment.train(max_steps=400)

    def left():
        with deployment.services.database.read() as session:
            return shards.checkpoints_of_line(session, job.id)

    with deployment.held():  # a quick machine would be done before it hears
        deployment.worker()
        deployment.wait("steps", lambda: running(deployment, job))
        deployment.services.database.transact(partial(jobs.cancel, job_id=job.id))
        deployment.wait("the last checkpoint", left)
    assert auditor.audit() == []
    again = deployment.retry(job.id)
    straight = deployment.train(max_steps=400)
    deployment.succeed(again.id, straight.id)
    with deployment.services.database.read() as session:
        told = [line.message for line in jobs.log_lines(session, again.id)]
    assert any(line.startswith("resuming from the checkpoint of step") for line in told)
    assert weights(deployment, "small:1") == weights(deployment, "small:2")
    assert auditor.audit() == []
