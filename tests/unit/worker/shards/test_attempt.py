"""An attempt at a shard, and what happens to the process that makes it."""

import multiprocessing
import os
import re

import pytest
import torch

from db import jobs
from db.columns import new_id
from db.errors import Draining, Unreachable
from db.shards import Claim
from tests.panics import PanicException
from worker.services import Services
from worker.settings import Settings
from worker.shards import reports
from worker.shards.attempt import Attempt, work
from worker.shards.context import WorkerContext
from worker.shards.finishing import Finisher
from worker.shards.heartbeat import Heartbeat
from worker.shared_memory import SharedState

SPEC = {"kind": "train", "family": "gan", "model": "m", "dataset": "d:1"}


GPU_FAULT = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


class Faulty(WorkerContext):
    """Every use of it raises what CUDA raises after a fault, or what Rust does."""

    error = GPU_FAULT

    def dataset(self, reference):
        raise self.error


def answer(settings, shard_id, error):
    context = Faulty(Services(settings), torch.device("cpu"))
    context.error = error
    work(context, shard_id, owner="boot", shared=SharedState())


def add_job(services, spec):
    def add(session):
        job = jobs.add(
            session, spec=spec, spec_hash="0" * 64, kind="train", model="m", ranges=[(0, 1)]
        )
        return job.id, jobs.shards_of(session, job.id)[0].id

    return services.database.transact(add)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"newer": 1}, "submitted by a newer genmill: .*no key 'newer'.*; upgrade genmill"),
        ({"kind": "distil"}, "submitted by a newer genmill: .*distil"),
        ({"format": 2}, "made by a newer genmill: it has format 2, .*up to 1; upgrade genmill"),
        ({"family": "diffusion"}, "no family 'diffusion'"),
    ],
)
def test_a_job_of_a_newer_version_is_left_to_a_newer_worker(tmp_path, database_url, change, says):
    services = Services(Settings(_env_file=None, home=tmp_path, database_url=database_url))
    job_id, shard_id = add_job(services, SPEC | change)
    context = WorkerContext(services, torch.device("cpu"))
    work(context, shard_id, owner="boot", shared=SharedState())
    with services.database.read() as session:
        (shard,) = jobs.shards_of(session, job_id)
    assert (shard.status, shard.failures, shard.releases) == ("queued", 0, 1)
    assert re.search(says, shard.last_error)
    services.close()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (GPU_FAULT, "illegal memory access"),
        (PanicException("index out of bounds"), "native code panicked (PanicException): index out"),
    ],
)
def test_a_process_that_cannot_be_trusted_any_more_reports_its_shard_and_ends(
    tmp_path, database_url, error, says
) -> None:
    settings = Settings(_env_file=None, home=tmp_path, database_url=database_url)
    services = Services(settings)
    job_id, shard_id = add_job(services, SPEC)
    process = multiprocessing.get_context("spawn").Process(
        target=answer, args=(settings, shard_id, error)
    )
    process.start()
    process.join(timeout=120)
    assert process.exitcode == os.EX_SOFTWARE
    with services.database.read() as session:
        (shard,) = jobs.shards_of(session, job_id)
        assert (shard.status, shard.failures) == ("queued", 1)
        assert says in shard.last_error
    services.close()


@pytest.mark.parametrize("end", [Draining(), Unreachable("the store is away")])
def test_shards_claimed_together_wait_together_for_a_database_that_is_away(
    tmp_path, database_url, monkeypatch, end
):
    settings = Settings(_env_file=None, home=tmp_path, database_url=database_url, lease_s=1)
    services = Services(settings)
    tries = []

    def away(_):
        tries.append(1)
        raise Unreachable("the database is away")

    def run_in(*_):
        raise end

    monkeypatch.setattr(services.database, "transact", away)
    monkeypatch.setattr(reports, "PAUSE_S", 0.5)
    monkeypatch.setattr(Attempt, "_run_in", run_in)
    with Finisher(services) as finisher:
        claims = [_claim(idx) for idx in range(20)]
        context = WorkerContext(services, torch.device("cpu"))
        pause_s = context.beat_pause_s
        heartbeat = Heartbeat(services, "boot", pause_s=pause_s, on_hang=lambda: None)
        Attempt(context, heartbeat, claims, SharedState(), finisher).run()
    assert len(tries) < 10
    services.close()


def _claim(idx):
    return Claim(
        new_id(), new_id(), 1, "boot", idx, idx, idx + 1,
        kind="generate", alone=True, work_key=1, group_id="g",
    )  # fmt: skip
