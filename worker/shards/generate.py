"""Shards of generate jobs: samples from the engine, packed into one object a shard.

Shards of several jobs run together where they have one model version and equal settings: their rows
fill micro-batches, and each shard is stored as soon as its last sample is made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from db.errors import Draining, Refused
from worker.engine import memory
from worker.engine.generate import Generation, Task, generate_together
from worker.feeds.source_images import SourceImages
from worker.media.samples.record import Origin
from worker.services.pinned import PinnedGeneration
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.lease import hang_checks_paused
from worker.shards.loaded_networks import LoadedNetwork
from worker.shards.packing import Packer
from worker.shards.storing import Part

Result = tuple[Part, ShardResult | Exception]


def generate_shards(
    context: WorkerContext, parts: Sequence[Part], folder: Path
) -> Iterator[Result]:
    """Make the samples of shards that have one `work_key`, store them, and yield each result.

    A shard is yielded once it is stored, or with the error that ends it alone, its lease's
    `Stopped` included; the caller commits or reports it. Raises what ends all: `Draining`, after
    the shards whose samples are all made, errors of the device, and any that loading raises.
    """
    with hang_checks_paused(part.lease for part in parts):
        loaded = context.load(parts[0].pinned.version)
        _require_memory(context, parts[0].pinned)
        tasks: dict[Task, Part] = {}
        for part in parts:
            try:
                tasks[Task(_generation(context, part, loaded), part.lease)] = part
            except Exception as error:  # such as a label that the model does not have
                yield part, error
    if tasks:
        yield from _run(context, tasks, loaded, folder)


def _run(
    context: WorkerContext, tasks: dict[Task, Part], loaded: LoadedNetwork, folder: Path
) -> Iterator[Result]:
    store, shape = context.services.store, loaded.network.shape
    [first, *_] = tasks.values()
    shared = _origin(context, first.pinned)  # the settings are equal
    origins = {part: _origin_of(part, shared) for part in tasks.values()}
    with Packer(store, shape, origins, folder) as packer:
        try:
            for step in generate_together([*tasks]):
                packer.add([(tasks[task], made) for task, made in step])
                yield from packer.results()
        except Draining:
            yield from packer.finish()
            raise
        yield from packer.finish()


def _require_memory(context: WorkerContext, pinned: PinnedGeneration) -> None:
    # on a GPU the micro-batch is halved on demand: one row must fit
    rows = 1 if context.device.type == "cuda" else pinned.params.micro_batch
    needed = rows * int(pinned.version.metrics.get("row_bytes", 0))
    context.networks.make_room(
        lambda: memory.require(
            needed, context.device, what=f"making {rows} at once", remedy="use a lower micro_batch"
        )
    )


def _generation(context: WorkerContext, part: Part, loaded: LoadedNetwork) -> Generation:
    spec, labels = part.pinned.spec, loaded.network.shape.labels
    if spec.label is not None and spec.label not in labels:
        raise Refused.unknown("label", spec.label, labels)
    return Generation(
        loaded.network,
        part.pinned.params,
        seed=spec.seed,
        start=part.lease.claim.start,
        stop=part.lease.claim.stop,
        label=None if spec.label is None else labels.index(spec.label),
        prompts=tuple(spec.prompts),
        precision=context.services.settings.precision,
        sources=SourceImages(context.dataset(spec.dataset)[1], labels) if spec.dataset else None,
    )


def _origin(context: WorkerContext, pinned: PinnedGeneration) -> Origin:
    spec = pinned.spec
    return Origin(
        family=pinned.family.name,
        model=spec.model,
        weights_sha256=pinned.version.weights_sha256,
        seed=spec.seed,
        sampling=pinned.params.model_dump(mode="json"),
        micro_batch=pinned.params.micro_batch,
        device=context.device.type,
        precision=context.services.settings.precision,
        dataset=spec.dataset,
    )


def _origin_of(part: Part, shared: Origin) -> Origin:
    spec = part.pinned.spec
    return replace(shared, seed=spec.seed, model=spec.model)
