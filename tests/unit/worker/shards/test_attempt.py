"""An attempt at a shard, and what becomes of the process that makes it."""

import multiprocessing

import torch

from db import jobs
from worker.services import Services
from worker.settings import Settings
from worker.shards.attempt import STUCK, work
from worker.shards.context import WorkerContext
from worker.shared_memory import Wire

SPEC = {"kind": "generate", "model": "m:1", "count": 1, "seed": 0}


class FaultyDevice(WorkerContext):
    """A bench whose GPU has met a fault: every use of it raises what CUDA's use raises then."""

    def version(self, reference):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def answer(settings, shard_id):
    bench = FaultyDevice(Services(settings), torch.device("cpu"))
    work(bench, shard_id, owner="boot", wire=Wire())


def test_a_process_whose_gpu_is_spoilt_reports_its_shard_and_ends(tmp_path, database_url) -> None:
    settings = Settings(_env_file=None, home=tmp_path, database_url=database_url)
    services = Services(settings)

    def add(session):
        job = jobs.add(
            session, spec=SPEC, spec_hash="0" * 64, kind="generate", model="m", ranges=[(0, 1)]
        )
        return job.id, jobs.shards_of(session, job.id)[0].id

    job_id, shard_id = services.database.transact(add)
    process = multiprocessing.get_context("spawn").Process(target=answer, args=(settings, shard_id))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == STUCK
    with services.database.read() as session:
        (shard,) = jobs.shards_of(session, job_id)
        assert (shard.status, shard.failures) == ("queued", 1)
        assert "illegal memory access" in shard.last_error
    services.close()
