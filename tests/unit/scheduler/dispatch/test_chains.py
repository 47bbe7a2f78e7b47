"""Chains: jobs that wait are queued, or cancelled with the reason, when it is their turn."""

import multiprocessing
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from db import chains, datasets, jobs, models, shards
from db.session import Database
from db.tables import Job
from scheduler.dispatch.chains import move_chains_on
from scheduler.submission import chains as submitted
from scheduler.submission.enqueue import enqueue, retry
from tests.unit.scheduler.submission.conftest import add_datasets, add_models
from worker.services import Services
from worker.services.finalize import finalize_due
from worker.settings import Settings
from worker.specs import parse_spec

TRAIN = {"kind": "train", "family": "vae", "model": "cats", "dataset": "pets", "max_steps": 1}
TUNE = {"kind": "finetune", "model": "cats", "dataset": "pets", "max_steps": 1}
MAKE = {"kind": "generate", "model": "cats", "count": 40, "label": "dog"}


class Line:
    """A record in which chains are enqueued, and their jobs run without a worker."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def enqueue(self, *specs: dict[str, object], **how: object) -> list[Job]:
        first, *then = map(parse_spec, specs)
        return self.chain(enqueue(self.services, first, then=then, **how).id)

    def chain(self, job_id: str) -> list[Job]:
        with self.services.database.read() as session:
            return chains.whole(session, job_id)

    def states(self, job_id: str) -> list[str]:
        return [job.status for job in self.chain(job_id)]

    def move_on(self) -> int:
        return move_chains_on(self.services)

    def claim(self, job: Job) -> shards.Claim:
        def work(session):
            shard = jobs.shards_of(session, job.id)[0]
            return shards.claim(session, shard.id, owner="w", lease_s=60)

        return self.services.database.transact(work)

    def succeed(self, job: Job) -> None:
        """Run a training: it makes the next version of its model."""
        claim, blob = self.claim(job), self.services.store.put_bytes(f"jobs/{job.id}/blobs", b"w")

        def work(session):
            weights = ("weights", "model.safetensors", blob.key, blob.sha256, 1, "x/y")
            shards.commit(session, claim, [shards.NewArtifact(*weights)])
            models.add_version(
                session,
                name=job.model,
                family="vae",
                params={"latent": 7},
                files={},
                weights_sha256=blob.sha256,
                metrics={"samples_per_second": 3.0},
                shape={"media": "image", "labels": ["cat", "dog"]},
                job_id=job.id,
            )

        self.services.database.transact(work)
        finalize_due(self.services)

    def fail(self, job: Job, error: str = "loss is NaN") -> None:
        claim = self.claim(job)
        self.services.database.transact(
            lambda session: shards.fail(
                session, claim, error, final=True, max_failures=1, backoff_s=0
            )
        )

    def reasons(self, job: Job) -> list[str | None]:
        with self.services.database.read() as session:
            return [step.reason for step in jobs.transitions(session, job.id)]


@pytest.fixture
def line(each_database: Database, tmp_path) -> Iterator[Line]:
    url = each_database.url.render_as_string(hide_password=False)
    settings = Settings(
        loop_s=0.01,
        _env_file=None,
        home=tmp_path,
        database_url=url,
        redis_url="redis://127.0.0.1:1/0",
    )
    with closing(Services(settings)) as services:
        services.database.transact(add_datasets)
        services.database.transact(lambda session: add_models(session, services.store))
        yield Line(services)


def test_each_job_is_queued_when_the_one_before_it_has_succeeded(line) -> None:
    first, second, third = line.enqueue(TRAIN, TUNE, MAKE, priority=4)
    assert line.states(first.id) == ["queued", "waiting", "waiting"]
    assert line.move_on() == 0
    line.succeed(first)
    assert line.move_on() == 1
    assert line.states(first.id) == ["succeeded", "queued", "waiting"]
    line.succeed(second)
    assert (line.move_on(), line.move_on()) == (1, 0)
    tuned, made = line.chain(first.id)[1:]
    assert (tuned.spec["model"], made.spec["model"]) == ("cats:1", "cats:2")
    assert made.samples == 40
    with line.services.database.read() as session:
        cut = jobs.shards_of(session, third.id)
    assert cut[-1].stop == 40
    assert {(shard.urgency, shard.group_id) for shard in cut} == {(-4, third.id)}


def test_names_mean_what_the_chain_made_and_used_whatever_came_since(line) -> None:
    first, second = line.enqueue(TRAIN, TUNE)
    line.succeed(first)
    line.enqueue(TRAIN)
    (other,) = line.enqueue(TRAIN)
    line.succeed(other)  # cats:2
    line.services.database.transact(
        lambda session: datasets.add_version(
            session,
            name="pets",
            kind="image",
            manifest_key="datasets/blobs/y",
            manifest_sha256="1" * 64,
            summary={"labels": ["cat", "dog"]},
        )
    )
    line.move_on()
    spec = line.chain(second.id)[1].spec
    assert (spec["model"], spec["dataset"]) == ("cats:1", "pets:1")


def test_a_failure_cancels_what_was_to_follow_and_says_why(line) -> None:
    first, second, third = line.enqueue(TRAIN, TUNE, MAKE)
    line.fail(first)
    assert line.move_on() == 1  # with the one after it
    assert line.states(first.id) == ["failed", "cancelled", "cancelled"]
    assert line.reasons(second)[-1] == (
        f"it was to run after job {first.id}, which failed: loss is NaN"
    )
    assert line.reasons(third)[-1] == f"it was to run after job {second.id}, which was cancelled"


def test_cancelling_a_job_cancels_what_waits_for_it_at_once(line) -> None:
    first, second, third = line.enqueue(TRAIN, TUNE, MAKE)
    cancel = line.services.database.transact
    assert cancel(lambda session: jobs.cancel(session, second.id))
    assert line.states(first.id) == ["queued", "cancelled", "cancelled"]
    assert not cancel(lambda session: jobs.cancel(session, third.id))
    line.succeed(first)
    assert line.move_on() == 0


def test_what_is_refused_when_its_turn_comes_fails_with_the_reason(line) -> None:
    first, second, third = line.enqueue(TRAIN, MAKE | {"label": "owl"}, TUNE)
    line.succeed(first)
    _, also = line.enqueue(TRAIN, TUNE)
    line.succeed(line.chain(also.id)[0])
    assert line.move_on() == 2  # one that fails holds up no other
    failed = line.chain(first.id)[1]
    assert (failed.id, failed.status) == (second.id, "failed")
    assert failed.error.startswith("it could not begin: model cats:1 has no label 'owl'")
    assert line.chain(third.id)[2].status == "cancelled"
    assert line.states(also.id) == ["succeeded", "queued"]


def test_trouble_with_one_is_left_to_the_next_round_and_holds_up_no_other(
    line, monkeypatch
) -> None:
    firsts = [line.enqueue(TRAIN, TUNE)[0] for _ in range(2)]
    for first in firsts:
        line.succeed(first)
    real, calls = submitted.names_of_chain, []

    def broken_once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise OSError("the disk is on fire")
        return real(*args)

    monkeypatch.setattr("scheduler.dispatch.chains.names_of_chain", broken_once)
    assert line.move_on() == 1
    time.sleep(0.05)
    assert line.move_on() == 1
    assert [line.states(first.id)[1] for first in firsts] == ["queued", "queued"]


def test_four_schedulers_release_a_job_once(line) -> None:
    made = [line.enqueue(TRAIN, TUNE) for _ in range(3)]
    for first, _ in made:
        line.succeed(first)
    with ThreadPoolExecutor(4) as threads:
        moved = list(threads.map(lambda _: line.move_on(), range(4)))
    assert sum(moved) == 3
    with line.services.database.read() as session:
        for _, second in made:
            assert len(jobs.shards_of(session, second.id)) == 1
            steps = jobs.transitions(session, second.id, with_shards=False)
            assert [step.new for step in steps] == ["waiting", "queued"]


def _move_and_die(settings: Settings, point: str) -> None:
    move_chains_on(Services(settings.model_copy(update={"failpoint": point})))


@pytest.mark.parametrize(
    ("point", "state"), [("chain_pinned", "waiting"), ("chain_released", "queued")]
)
def test_a_scheduler_that_is_killed_leaves_all_of_a_release_or_nothing(line, point, state) -> None:
    first, second = line.enqueue(TRAIN, TUNE)
    line.succeed(first)
    process = multiprocessing.get_context("fork").Process(
        target=_move_and_die, args=(line.services.settings, point)
    )
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    assert line.states(first.id)[1] == state
    line.move_on()
    assert line.states(first.id)[1] == "queued"
    with line.services.database.read() as session:
        assert len(jobs.shards_of(session, second.id)) == 1


def test_a_retry_of_a_failed_job_is_followed_by_those_that_were_to_follow(line) -> None:
    first, second, third = line.enqueue(TRAIN, TUNE, MAKE)
    line.succeed(first)
    line.move_on()
    line.fail(line.chain(first.id)[1])
    again = retry(line.services, line.chain(first.id)[1])  # before a scheduler has looked
    found = {job.id: job for job in line.chain(first.id)}
    assert (again.after_id, again.retry_of, again.status) == (first.id, second.id, "queued")
    (last,) = [job for job in found.values() if job.after_id == again.id]
    assert (last.retry_of, last.status, last.kind) == (third.id, "waiting", "generate")
    line.succeed(again)
    line.move_on()
    assert {job.id: job.status for job in line.chain(first.id)}[last.id] == "queued"


def test_a_job_that_was_cancelled_while_it_waited_can_be_retried(line) -> None:
    first, second, _ = line.enqueue(TRAIN, TUNE, MAKE)
    line.services.database.transact(lambda session: jobs.cancel(session, second.id))
    again = retry(line.services, line.chain(second.id)[1])
    assert (again.status, again.after_id) == ("waiting", first.id)
    line.fail(first)
    line.move_on()
    assert set(line.states(first.id)[1:]) == {"cancelled"}
    with pytest.raises(Exception, match=f"retry job {first.id}"):
        retry(line.services, line.chain(first.id)[1])
    whole = line.chain(retry(line.services, line.chain(first.id)[0]).id)
    assert [job.kind for job in whole] == ["train", "finetune", "generate"]
