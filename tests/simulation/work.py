"""What simulated workers make: samples that take time, fail, or differ between two attempts."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from db import jobs
from db.commits import NewArtifact, NewIndex, blob_prefix
from db.errors import BadInput, Draining, Stopped, Unreachable
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.storing import Part

if TYPE_CHECKING:
    from tests.simulation.world import World

Result = tuple[Part, ShardResult | Exception]
INDEX_ENTRY = struct.Struct("<QI32s")  # offset, size, SHA-256


class SimulatedWork:
    """In place of `generate_shards`."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def __call__(
        self, context: WorkerContext, parts: Sequence[Part], folder: Path, *, more: object = list
    ) -> Iterator[Result]:
        for part in parts:
            try:
                yield part, self._make(context, part)
            except Draining:
                raise
            except (Stopped, Unreachable, BadInput, RuntimeError, OSError) as error:
                yield part, error

    def _make(self, context: WorkerContext, part: Part) -> ShardResult:
        world, claim = self._world, part.lease.claim
        steps = world.machine.random.choice([1, 1, 2, 3])
        for done in range(steps):
            part.lease.progress(done, steps, "samples")
            world.machine.sleep(world.machine.random.expovariate(1 / world.step_s))
            self._fail_as_told(claim.job_id)
        part.lease.progress(steps, steps, "samples")
        data = f"{claim.job_id} {claim.start} {claim.stop}"
        if world.happens("differs"):
            data += f" as attempt {claim.fence} made it"
        return self._store(context, part, data.encode())

    def _fail_as_told(self, job_id: str) -> None:
        fate = self._world.one_of("work_fails", "work_is_refused", "process_panics")
        if fate is None:
            return
        if fate == "process_panics":
            self._world.die()
        self._world.blamed.add(job_id)
        raise RuntimeError("it broke") if fate == "work_fails" else BadInput("it is no picture")

    def _store(self, context: WorkerContext, part: Part, data: bytes) -> ShardResult:
        claim = part.lease.claim
        prefix = blob_prefix(claim.job_id)
        blob = context.services.store.put_bytes(prefix, data, durable=False)
        samples = range(claim.start, claim.stop)
        entry = INDEX_ENTRY.pack(0, blob.size, bytes.fromhex(blob.sha256))
        index = NewIndex(samples, blob.sha256, data=entry * len(samples))
        name = f"samples-{claim.idx:06d}.tar"
        made = NewArtifact(
            "samples", name, blob.key, blob.sha256, blob.size, "application/x-tar", index
        )
        ends = claim.alone and self._world.stores_manifests
        manifest = jobs.manifest_to_be(claim, part.job.spec_hash, [made]) if ends else None
        return ShardResult([made], manifest=manifest)
