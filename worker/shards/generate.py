"""Shards of generate jobs: samples from the engine, packed into one object a shard.

Shards of several jobs run together where they have one model version and equal settings: their rows
fill micro-batches, and each shard is stored as soon as its last sample is made.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from db.errors import Draining, Refused, contained
from worker.engine import memory
from worker.engine.generate import Generation, Sample, Task, generate_together
from worker.engine.stages import LOADING
from worker.engine.streams import most_streams
from worker.feeds.source_images import SourceImages
from worker.marks.apply import token_key
from worker.marks.base import Marking
from worker.media.samples.record import Origin
from worker.networks.network import StreamingNetwork
from worker.services.marking import marking_of
from worker.services.pinned import PinnedGeneration
from worker.shards.context import ShardResult, WorkerContext
from worker.shards.lease import Lease, hang_checks_paused
from worker.shards.loaded_networks import LoadedNetwork
from worker.shards.packing import Made, Packer
from worker.shards.sample_rules import Judging, begin_judging
from worker.shards.storing import Part

Result = tuple[Part, ShardResult | Exception]
More = Callable[[], Sequence[Part]]


def generate_shards(
    context: WorkerContext, parts: Sequence[Part], folder: Path, *, more: More = list
) -> Iterator[Result]:
    """Make the samples of shards that have one `work_key`, store them, and yield each result.

    Samples that end at different times, as texts do, are joined by those of `more` parts as they
    end. A shard is yielded once it is stored, or with the error that ends it alone, its lease's
    `Stopped` included; the caller commits or reports it. Raises what ends all: `Draining`, after
    the shards whose samples are all made, errors of the device, and any that loading raises.
    """
    leases, version = [part.lease for part in parts], parts[0].pinned.version
    shown = [] if version in context.networks else leases
    with hang_checks_paused(leases), _shown_as_loading(shown):
        loaded = context.load(version)
        _require_memory(context, parts[0].pinned, loaded)
    pinned, shape = parts[0].pinned, loaded.network.shape  # the settings and marks are equal
    shared, marking = _origin(context, pinned), marking_of(context.services, pinned.spec, shape)
    if marking:
        marking = replace(marking, tokens=loaded.network.tokenize)
    origins = {part: _origin_of(part, shared) for part in parts}
    with Packer(context.services.store, shape, origins, folder, marking) as packer:
        yield from _Shards(context, loaded, packer, shared, folder, marking).run(parts, more)


@contextmanager
def _shown_as_loading(leases: Sequence[Lease]) -> Iterator[None]:
    """Show during the block that the network is being loaded."""
    for lease in leases:
        lease.stages([{"name": LOADING}])
    try:
        yield
    finally:
        for lease in leases:
            lease.stages([])


class _Shards:
    """Shards that run together on one network."""

    def __init__(
        self,
        context: WorkerContext,
        loaded: LoadedNetwork,
        packer: Packer,
        shared: Origin,
        folder: Path,
        marking: Marking | None,
    ) -> None:
        """`shared` is the origin of all samples, but for seeds and names."""
        self._context, self._loaded, self._packer, self._shared = context, loaded, packer, shared
        self._folder, self._watermark_key = folder, token_key(marking)
        self._tasks: dict[Task, Part] = {}
        self._judged: dict[Part, Judging] = {}  # those of orders with rules

    def run(self, parts: Sequence[Part], more: More) -> Iterator[Result]:
        """Yield results as shards are stored."""
        joined = isinstance(self._loaded.network, StreamingNetwork)
        tasks = self._begin(parts)
        steps = generate_together(tasks, partial(self._begin_more, more) if joined else tuple)
        try:
            for step in steps if tasks else ():
                self._add([(self._tasks[task], made) for task, made in step])
                yield from map(self._with_verdicts, self._packer.results())
        except Draining:
            yield from map(self._with_verdicts, self._packer.finish())
            raise
        yield from map(self._with_verdicts, self._packer.finish())

    def _add(self, step: Sequence[Made]) -> None:
        """Judge samples that have to be, and pack all; what ends a part is packed too."""
        self._packer.add([(part, self._judge(part, made)) for part, made in step])

    def _judge(self, part: Part, made: list[Sample] | Exception) -> list[Sample] | Exception:
        judging = self._judged.get(part)
        if judging is None or isinstance(made, Exception):
            return made
        try:
            judging.add(made)
        except Draining:
            raise
        except BaseException as error:  # the shards beside it may be of other jobs
            del self._judged[part]
            return contained(error)
        return made

    def _with_verdicts(self, result: Result) -> Result:
        part, made = result
        judging = self._judged.pop(part, None)
        if judging is None or isinstance(made, Exception):
            return result
        try:
            verdicts = judging.store(self._context)
        except BaseException as error:
            return part, contained(error)
        return part, replace(made, artifacts=[*made.artifacts, verdicts])

    def _begin_more(self, more: More) -> list[Task]:
        parts = more()
        for part in parts:
            self._packer.open(part, _origin_of(part, self._shared))
        return self._begin(parts)

    def _begin(self, parts: Sequence[Part]) -> list[Task]:
        """The tasks of parts; a part that has none, such as for an unknown label, ends here."""
        begun: dict[Task, Part] = {}
        for part in parts:
            try:
                generation = _generation(self._context, part, self._loaded)
                generation = replace(generation, watermark_key=self._watermark_key)
                task = Task(generation, part.lease)
                shape = self._loaded.network.shape
                judging = begin_judging(self._context, part, shape, self._folder)
            except BaseException as error:
                self._packer.add([(part, contained(error))])
            else:
                begun[task] = part
                if judging is not None:
                    self._judged[part] = judging
        self._tasks |= begun
        return [*begun]


def _require_memory(
    context: WorkerContext, pinned: PinnedGeneration, loaded: LoadedNetwork
) -> None:
    # on a GPU the micro-batch is halved on demand: one row must fit
    streams = most_streams(loaded.network, context.device)
    rows = 1 if context.device.type == "cuda" else streams * pinned.params.micro_batch
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
        marks=spec.marks.name if spec.marks else None,
    )


def _origin_of(part: Part, shared: Origin) -> Origin:
    spec = part.pinned.spec
    return replace(shared, seed=spec.seed, model=spec.model)
