"""An attempt at a shard, and what happens to the process that makes it."""

import multiprocessing
import os

import torch

from db import jobs
from worker.services import Services
from worker.settings import Settings
from worker.shards.attempt import work
from worker.shards.context import WorkerContext
from worker.shared_memory import SharedState

SPEC = {"kind": "train", "family": "gan", "model": "m", "dataset": "d:1"}


class FaultyDevice(WorkerContext):
    """A device after a GPU fault: every use of it raises what CUDA raises then."""

    def dataset(self, reference):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def answer(settings, shard_id):
    context = FaultyDevice(Services(settings), torch.device("cpu"))
    work(context, shard_id, owner="boot", shared=SharedState())


def test_a_process_whose_gpu_failed_reports_its_shard_and_ends(tmp_path, database_url) -> None:
    settings = Settings(_env_file=None, home=tmp_path, database_url=database_url)
    services = Services(settings)

    def add(session):
        job = jobs.add(
            session, spec=SPEC, spec_hash="0" * 64, kind="train", model="m", ranges=[(0, 1)]
        )
        return job.id, jobs.shards_of(session, job.id)[0].id

    job_id, shard_id = services.database.transact(add)
    process = multiprocessing.get_context("spawn").Process(target=answer, args=(settings, shard_id))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == os.EX_SOFTWARE
    with services.database.read() as session:
        (shard,) = jobs.shards_of(session, job_id)
        assert (shard.status, shard.failures) == ("queued", 1)
        assert "illegal memory access" in shard.last_error
    services.close()
