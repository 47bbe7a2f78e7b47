"""What simulated workers make: samples that take time, fail, or differ between two attempts."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from db import jobs
from db.commits import NewArtifact, NewIndex, blob_prefix
from db.errors import BadInput, Draining, Stopped, Unreachable
from db.orders import VERDICTS
from worker.services.verdicts import PASSED, SHORT, Verdicts
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
            world.work(claim)
        part.lease.progress(steps, steps, "samples")
        data = f"{claim.job_id} {claim.start} {claim.stop}"
        if world.happens("differs"):
            data += f" as attempt {claim.fence} made it"
        return self._store(context, part, data.encode())

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
        if part.pinned.spec.accept is not None:
            return ShardResult([made, self._judge(context, part, samples)])
        ends = claim.alone and self._world.stores_manifests
        manifest = jobs.manifest_to_be(claim, part.job.spec_hash, [made]) if ends else None
        return ShardResult([made], manifest=manifest)

    def _judge(self, context: WorkerContext, part: Part, samples: range) -> NewArtifact:
        """Store the verdicts on samples of an order."""
        claim, none = part.lease.claim, np.zeros((len(samples), 0), np.float32)
        codes = [PASSED if self._world.accepts(each) else SHORT for each in samples]
        values = np.zeros(len(samples), np.float32)
        found = Verdicts(samples.start, np.array(codes, np.uint8), values, none, 0.0)
        prefix = blob_prefix(claim.job_id)
        blob = context.services.store.put_bytes(prefix, found.encode(), durable=False)
        place = (blob.key, blob.sha256, blob.size)
        return NewArtifact(
            VERDICTS, f"verdicts-{claim.idx:06d}.npz", *place, "application/octet-stream"
        )
