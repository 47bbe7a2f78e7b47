"""A shard of a generate job: samples from the engine, streamed into one object."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from db.claims import Claim
from db.errors import Refused, Stopped
from db.tables import Job
from worker.engine import memory
from worker.engine.generate import Generation, generate
from worker.feeds.source_images import SourceImages
from worker.media import find_medium
from worker.media.samples.containers import SampleRecord, Written
from worker.media.samples.record import Origin
from worker.services.pinned import PinnedGeneration
from worker.services.samples import store_index
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.lease import Lease
from worker.shards.loaded_networks import LoadedNetwork


class Part(NamedTuple):
    """One of the shards that run together: all have one `work_key`."""

    job: Job
    pinned: PinnedGeneration
    claim: Claim


def generate_shards(
    context: WorkerContext, parts: Sequence[Part], lease: Lease, folder: Path
) -> Iterator[tuple[Part, ShardResult | Exception]]:
    """Make and store the samples of shards; yields each one's result, or its error.

    An error of one part harms no other; an order to stop and a device's error end them all.
    """
    for part in parts:
        try:
            result = generate_shard(context, part, lease, folder)
        except (Stopped, torch.AcceleratorError):
            raise
        except Exception as error:
            yield part, error
        else:
            yield part, result


def generate_shard(context: WorkerContext, part: Part, lease: Lease, folder: Path) -> ShardResult:
    """Make the shard's samples in `folder` and store them; the caller commits the result."""
    job, pinned, claim = part
    version = pinned.version
    with lease.hang_check_paused():
        loaded = context.load(version)
        generation = _generation(context, pinned, loaded, claim)
    # on a GPU the micro-batch is halved on demand: one row must fit
    rows = 1 if context.device.type == "cuda" else pinned.params.micro_batch
    needed = rows * int(version.metrics.get("row_bytes", 0))
    context.networks.make_room(
        lambda: memory.require(
            needed, context.device, what=f"making {rows} at once", remedy="use a lower micro_batch"
        )
    )
    origin = _origin(context, pinned, generation)
    written = _write(job, generation, origin, lease, folder / "samples")
    name = f"samples-{claim.idx:06d}{written.extension}"
    artifact = lease.put("samples", name, written.path, written.media_type, claim=claim)
    with lease.hang_check_paused():
        index = store_index(context.services.store, job.id, written.index)
    return ShardResult([replace(artifact, index=index)])


def _generation(
    context: WorkerContext, pinned: PinnedGeneration, loaded: LoadedNetwork, claim: Claim
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
    """Write the samples into a file; a thread encodes them while the model makes the next."""
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
