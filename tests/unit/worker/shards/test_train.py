"""Which checkpoint a training resumes from: the newest of its line that can be used."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

from db import jobs, shards
from db.errors import Cancelled, Draining, NothingToKeep, Unreachable
from db.interventions import end_early
from tests.families.kit import Recorder, image_dataset, small_training
from worker.engine.train import train
from worker.families import find_family
from worker.shards.context import WorkerContext
from worker.shards.lease import Lease
from worker.shards.train import _resume_curves, train_from_newest, train_job
from worker.shared_memory import SharedState

STEPS = 9


@pytest.fixture
def asked(tmp_path):
    """A small training."""
    dataset = image_dataset(tmp_path / "dataset")
    return small_training(find_family("vae"), dataset, tmp_path / "run", max_steps=STEPS, seed=3)


@pytest.fixture
def weights(asked, tmp_path):
    """The weights of the training, left alone."""
    return train(replace(asked, folder=tmp_path / "straight"), Recorder()).files[0].read_bytes()


def add(services, **origin):
    """A training job, claimed: its brief and its lease."""

    def work(session):
        how = {"spec": {}, "spec_hash": "0" * 64, "kind": "train", "model": "m"}
        job = jobs.add(session, ranges=[(0, 1)], **how, **origin)
        [shard] = jobs.shards_of(session, job.id)
        claim = shards.claim(session, shard.id, owner="me", lease_s=60)
        return jobs.briefs(session, [job.id])[job.id], claim

    job, claim = services.database.transact(work)
    return job, Lease(services, claim, shared=SharedState())


def save(services, lease, asked, folder, *steps):
    """Store checkpoints of these steps, as a worker that is told to stop does; their keys."""
    for step in steps:
        recorder = Recorder(drain_at=step, keep=folder)
        with pytest.raises(Draining):
            train(replace(asked, folder=folder / f"{step}-of-{asked.seed}"), recorder)
        lease.checkpoint(step, recorder.checkpoints[-1][1])
    with services.database.read() as session:
        return [each.key for each in shards.checkpoints_of_line(session, lease.claim.job_id)]


def run(services, job, lease, asked, folder):
    folder.mkdir()
    context = WorkerContext(services, torch.device("cpu"))
    trained = train_from_newest(context, job, lease, replace(asked, folder=folder))
    for write in lease.held.pending:
        services.database.transact(write)
    with services.database.read() as session:
        log = [line.message for line in jobs.log_lines(session, job.id)]
    return trained.files[0].read_bytes(), log


def bad_steps(services, lease):
    with services.database.read() as session:
        usable = shards.checkpoints_of_line(session, lease.claim.job_id)
    return {3, 6} - {each.step for each in usable}


def stored(services, key):
    return Path(services.settings.home / "store" / key)


def test_it_resumes_from_the_newest(services, asked, weights, tmp_path):
    job, lease = add(services)
    save(services, lease, asked, tmp_path, 3, 6)
    made, log = run(services, job, lease, asked, tmp_path / "again")
    assert made == weights
    assert "resuming from the checkpoint of step 6" in log


@pytest.mark.parametrize("fault", ["gone", "cut", "changed"])
def test_a_lost_or_damaged_one_is_marked_and_the_one_before_used(
    services, asked, weights, tmp_path, fault
):
    job, lease = add(services)
    newest, _ = save(services, lease, asked, tmp_path, 3, 6)
    path = stored(services, newest)
    content = path.read_bytes()
    path.unlink()
    if fault != "gone":
        path.write_bytes(
            content[:-1] if fault == "cut" else content[:-1] + bytes([content[-1] ^ 1])
        )
    made, log = run(services, job, lease, asked, tmp_path / "again")
    assert made == weights
    assert "resuming from the checkpoint of step 3" in log
    assert bad_steps(services, lease) == {6}


def test_a_store_that_is_away_condemns_none(services, asked, tmp_path, monkeypatch):
    job, lease = add(services)
    save(services, lease, asked, tmp_path, 3, 6)

    def away(*_, **__):
        raise Unreachable("the store is away")

    monkeypatch.setattr(services.store, "fetch", away)
    with pytest.raises(Unreachable):
        run(services, job, lease, asked, tmp_path / "again")
    assert bad_steps(services, lease) == set()


@pytest.mark.parametrize(
    "error",
    [OSError(24, "Too many open files"), SafetensorError("Too many open files (os error 24)")],
)
def test_a_machine_that_cannot_read_it_now_condemns_none(
    services, asked, tmp_path, monkeypatch, error
):
    job, lease = add(services)
    save(services, lease, asked, tmp_path, 3, 6)

    def starved(*_, **__):
        raise error

    monkeypatch.setattr("worker.engine.tensors.safe_open", starved)
    with pytest.raises(OSError, match="Too many open files"):
        run(services, job, lease, asked, tmp_path / "again")
    assert bad_steps(services, lease) == set()


def test_those_of_a_run_with_other_numbers_are_passed_over_and_not_condemned(
    services, asked, weights, tmp_path
):
    job, lease = add(services)
    save(services, lease, asked, tmp_path, 3)
    save(services, lease, replace(asked, seed=8), tmp_path, 6)
    made, log = run(services, job, lease, asked, tmp_path / "again")
    assert made == weights
    assert any("step 6 cannot be used: checkpoint" in line for line in log)
    assert "resuming from the checkpoint of step 3" in log
    assert bad_steps(services, lease) == set()


def test_a_retry_resumes_where_the_retry_before_it_did(
    services, asked, weights, tmp_path, monkeypatch
):
    monkeypatch.setattr("db.checkpoints.LEFT_SOON", timedelta())
    first, lease = add(services)
    save(services, lease, asked, tmp_path, 6)
    services.database.transact(lambda session: jobs.cancel(session, first.id))
    second, _ = add(services, retry_of=first.id)
    services.database.transact(lambda session: jobs.cancel(session, second.id))
    third, held = add(services, retry_of=second.id)
    made, log = run(services, third, held, asked, tmp_path / "again")
    assert made == weights
    assert f"resuming from the checkpoint of step 6 of job {first.id}" in log


def test_the_curves_of_a_retry_begin_with_those_of_what_it_retries(services, asked, tmp_path):
    first, lease = add(services)
    save(services, lease, asked, tmp_path, 6)

    def end(session):
        for step in (2, 6, 7):
            jobs.add_points(session, first.id, step, {"train/loss": step})
        jobs.cancel(session, first.id)

    services.database.transact(end)
    second, held = add(services, retry_of=first.id)
    held.held.pending.clear()
    with services.database.write() as session:
        [found] = shards.checkpoints_of_line(session, second.id)
        for _ in range(2):  # a resumed one may be resumed again
            _resume_curves(second.id, found, session)
        made = [(point.step, point.value) for point in jobs.points(session, second.id)]
    assert made == [(2, 2), (6, 6)]


def test_a_retry_waits_for_the_checkpoint_that_is_being_left(
    services, asked, weights, tmp_path, monkeypatch
):
    first, lease = add(services)
    recorder = Recorder(drain_at=6, keep=tmp_path)
    with pytest.raises(Draining):
        train(replace(asked, folder=tmp_path / "first"), recorder)
    services.database.transact(lambda session: jobs.cancel(session, first.id))
    second, held = add(services, retry_of=first.id)

    def leave(_):
        monkeypatch.undo()
        with pytest.raises(Cancelled):
            lease.checkpoint(6, recorder.checkpoints[-1][1])

    monkeypatch.setattr("worker.shards.train.time", SimpleNamespace(sleep=leave))
    made, log = run(services, second, held, asked, tmp_path / "again")
    assert made == weights
    assert f"resuming from the checkpoint of step 6 of job {first.id}" in log


def test_without_a_usable_one_it_begins_anew(services, asked, weights, tmp_path):
    job, lease = add(services)
    for key in save(services, lease, asked, tmp_path, 3, 6):
        stored(services, key).unlink()
    made, log = run(services, job, lease, asked, tmp_path / "again")
    assert made == weights
    assert not any("resuming" in line for line in log)


def test_a_training_with_nothing_to_keep_is_cancelled(services, asked, tmp_path, monkeypatch):
    job, lease = add(services)
    services.database.transact(partial(end_early, job_id=job.id))
    with services.database.read() as session:
        job = jobs.briefs(session, [job.id])[job.id]
    version = SimpleNamespace(id="v", dataset_id="d", summary={})
    monkeypatch.setattr(WorkerContext, "dataset", lambda *_: (version, asked.dataset))
    spec = SimpleNamespace(dataset="d:1", seed=3, max_steps=STEPS, max_seconds=None)
    pinned = SimpleNamespace(spec=spec, version=None, family=asked.family, params=asked.params)
    context = WorkerContext(services, torch.device("cpu"))
    (tmp_path / "work").mkdir()
    with pytest.raises(NothingToKeep):
        train_job(context, job, pinned, lease, tmp_path / "work")
    with services.database.read() as session:
        ended = jobs.get(session, job.id)
        reasons = [step.reason for step in jobs.transitions(session, job.id)]
    assert ended.status == "cancelled"
    assert any("nothing to keep" in str(reason) for reason in reasons)
