"""The baseline of the ledger's cost: the same engine, packer and store, and no record.

    python -m tests.bench.without_ledger HOME JOB_ID

makes the samples of a job's shards again, one shard after another as a worker does, but claims,
renews and commits nothing. Prints the seconds that it took, and those of the processor.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from db import jobs
from db.claims import Claim
from db.columns import new_id
from db.jobs import JobBrief
from db.tables import Shard
from worker.engine.device import deterministic
from worker.services import Services
from worker.services.pinned import PinnedGeneration
from worker.settings import Settings
from worker.shards.context import WorkerContext
from worker.shards.generate import generate_shards
from worker.shards.lease import Lease
from worker.shards.storing import Part
from worker.shared_memory import SharedState

WARM_UP = 256  # samples, so that the network is loaded


def main() -> None:
    """Make a job's samples again."""
    home, job_id = sys.argv[1:]
    deterministic()
    torch.set_num_threads(1)
    services = Services(Settings(_env_file=None, home=Path(home), device="cpu"))
    context = WorkerContext(services, torch.device("cpu"))
    with services.database.read() as session:
        job, shards = jobs.briefs(session, [job_id])[job_id], jobs.shards_of(session, job_id)
    make(context, job, [(0, WARM_UP)])
    began = time.perf_counter(), time.process_time()
    make(context, job, ranges_of(shards))
    print(time.perf_counter() - began[0], time.process_time() - began[1])
    services.close()


def make(context: WorkerContext, job: JobBrief, ranges: Sequence[tuple[int, int]]) -> None:
    """Make and store the samples of some ranges, under the key of a job that does not exist."""
    pinned = context.pinned(job, None)
    assert isinstance(pinned, PinnedGeneration)
    nowhere = job._replace(id=new_id())
    for idx, (start, stop) in enumerate(ranges):
        claim = Claim(
            new_id(), nowhere.id, 1, "boot", idx, start, stop,
            kind="generate", alone=False, work_key=None, group_id=nowhere.id,
        )  # fmt: skip
        lease = Lease(context.services, claim, shared=SharedState())
        with TemporaryDirectory() as folder:
            for _, made in generate_shards(context, [Part(nowhere, pinned, lease)], Path(folder)):
                if isinstance(made, Exception):
                    raise made
        context.services.store.flush()


def ranges_of(shards: Sequence[Shard]) -> list[tuple[int, int]]:
    """The ranges of a job's shards."""
    return [(shard.start, shard.stop) for shard in shards]


if __name__ == "__main__":
    main()
