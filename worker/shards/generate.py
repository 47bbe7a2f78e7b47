"""A shard of a generate job: samples from the engine, streamed into one stored object."""

from dataclasses import replace
from pathlib import Path

import torch

from db.claims import Claim
from db.errors import Refused
from db.tables import Job, ModelVersion
from worker.engine import memory
from worker.engine.generate import Generation, generate
from worker.feeds.source_images import SourceImages
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord, Written
from worker.media.samples.record import Origin
from worker.services.pinned import PinnedGeneration
from worker.shards.context import Made, WorkerContext
from worker.shards.lease import Lease
from worker.shards.networks import Loaded


def generate_shard(
    context: WorkerContext, job: Job, pinned: PinnedGeneration, lease: Lease, folder: Path
) -> Made:
    """Make the shard's samples in `folder` and store them; the caller commits what is returned."""
    version = pinned.version
    with lease.hang_check_paused():
        loaded = context.load(version)
        generation = _generation(context, pinned, loaded, lease.claim)
    context.networks.make_room(lambda: _require_memory(version, generation, context.device))
    origin = _origin(context, pinned, generation)
    written = _write(job, generation, origin, lease, folder / "samples")
    name = f"samples-{lease.claim.idx:06d}{written.extension}"
    artifact = lease.put("samples", name, written.path, written.media_type)
    return Made([replace(artifact, members=written.members)])


def _generation(
    context: WorkerContext, pinned: PinnedGeneration, loaded: Loaded, claim: Claim
) -> Generation:
    spec, labels = pinned.spec, loaded.network.shape.labels
    if spec.label is not None and spec.label not in labels:
        raise Refused.unknown("label", spec.label, labels)
    return Generation(
        loaded.network,
        pinned.params,
        seed=spec.seed,
        start=claim.start,
        stop=claim.stop,
        label=None if spec.label is None else labels.index(spec.label),
        prompts=tuple(spec.prompts),
        precision=context.services.settings.precision,
        sources=SourceImages(context.dataset(spec.dataset)[1], labels) if spec.dataset else None,
    )


def _require_memory(version: ModelVersion, generation: Generation, device: torch.device) -> None:
    """Refuse a micro-batch that cannot fit; a GPU's halves as it runs, so one row is enough."""
    rows = 1 if device.type == "cuda" else generation.sampling.micro_batch
    needed = rows * int(version.metrics.get("row_bytes", 0))
    memory.require(needed, device, what=f"making {rows} at once", remedy="set a lower micro_batch")


def _origin(context: WorkerContext, pinned: PinnedGeneration, generation: Generation) -> Origin:
    spec = pinned.spec
    return Origin(
        family=pinned.family.name,
        model=spec.model,
        weights_sha256=pinned.version.weights_sha256,
        seed=spec.seed,
        sampling=pinned.params.model_dump(mode="json"),
        micro_batch=pinned.params.micro_batch,
        device=context.device.type,
        precision=generation.precision,
        dataset=spec.dataset,
    )


def _write(job: Job, generation: Generation, origin: Origin, lease: Lease, path: Path) -> Written:
    """Write the samples into a file; they are encoded in a thread beside the model."""
    shape = generation.network.shape
    with find_medium(shape.media).open_writer(path, shape) as writer:
        for sample in generate(generation, lease):
            record = replace(origin, micro_batch=sample.micro_batch).record(
                sample.index,
                label=sample.label,
                prompt=sample.prompt,
                custom_id=sample.custom_id or job.custom_id,
            )
            writer.add(SampleRecord(sample.index, sample.output, record))
        return writer.close()
