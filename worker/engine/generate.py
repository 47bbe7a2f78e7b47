"""Sampling from a network. Knows no queue and no family by name.

Sample i depends only on the weights, the settings, the seed and i: its noise is keyed by (seed, i),
and every forward pass has the same number of rows, padded if fewer are asked for.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch

from db.errors import Draining, NonFinite, Stopped
from worker.engine.device import autocast, deterministic
from worker.engine.monitor import Monitor
from worker.engine.threads import ThreadChoice
from worker.feeds.source_images import SourceImages
from worker.networks.network import Draw, Finished, Network, Output, Row, SourceImage
from worker.networks.params import SamplingParams
from worker.specs import Prompt

T = TypeVar("T")

REPORT_EVERY_S = 0.5  # by tasks of which the last steps have made nothing

_choices: WeakKeyDictionary[Network, ThreadChoice] = WeakKeyDictionary()


@dataclass(frozen=True)
class Generation:
    """Samples `start` to `stop` of a generate job.

    `label` is the class number of all samples. Samples cycle through the `prompts` and through the
    `sources`, whose own classes apply if there is no `label`. With none of these, a network with
    labels cycles through its labels.
    """

    network: Network
    sampling: SamplingParams
    seed: int
    start: int
    stop: int
    label: int | None = None
    prompts: tuple[Prompt, ...] = ()
    precision: str = "fp32"
    sources: SourceImages | None = None

    def row(self, index: int) -> Row:
        """The request for sample `index`."""
        images: tuple[SourceImage, ...] = ()
        if self.sources:
            found = map(self.sources.at, self.sampling.source_indices(index))
            own = self.label is None
            images = tuple(SourceImage(pix, label if own else self.label) for pix, label in found)
        prompt = self.prompts[index % len(self.prompts)].prompt if self.prompts else None
        return Row(index, self._label(index, images), prompt, images, self.seed)

    def _label(self, index: int, images: Sequence[SourceImage]) -> int | None:
        """The class of a sample; None between source images of two classes."""
        labels = len(self.network.shape.labels)
        if self.label is not None or not labels:
            return self.label
        if images:
            classes = {image.label for image in images}
            return classes.pop() if len(classes) == 1 else None
        return index // self.sampling.samples_per_label % labels


@dataclass(slots=True)
class Sample:
    """One sample and the request it answers."""

    index: int
    output: Output
    label: str | None
    prompt: str | None
    custom_id: str | None
    micro_batch: int  # rows of the forward pass that made it


class Sampler:
    """Samples in forward passes of one fixed size, halved when a GPU runs out of memory."""

    def __init__(
        self, network: Network, sampling: SamplingParams, *, precision: str = "fp32"
    ) -> None:
        deterministic()
        self.network = network.eval()
        self.sampling = sampling
        self.precision = precision
        self.device = next(network.parameters()).device

    def make(self, rows: Sequence[Row]) -> list[Output]:
        """The rows' outputs, in order; out of memory, it tries half the micro-batch."""
        while True:
            try:
                steps = self.steps(iter(rows))
                made = {row: output for step in steps for row, output in step}
                return [made[row] for row in rows]
            except torch.OutOfMemoryError:
                if self.sampling.micro_batch == 1:
                    raise
            self.halve_micro_batch()  # outside the handler: the exception keeps tensors alive

    def steps(self, rows: Iterator[Row]) -> Iterator[list[Finished]]:
        """The samples that each step of the network finishes: often none, and in any order."""
        stream = self.network.stream(rows, self._draw, self.sampling)
        while True:
            # entered anew for each step: across a `yield` they would stay active in the caller
            with torch.inference_mode(), autocast(self.device, self.precision):
                made = next(stream, None)
            if made is None:
                return
            for row, output in made:
                # pixels and text were checked where they were made
                if not isinstance(output, str) and output.dtype.kind == "f" and not _finite(output):
                    raise NonFinite(f"sample {row.index} holds numbers that are NaN or infinite")
            yield made

    def _draw(self, rows: Sequence[Row]) -> Draw:
        return Draw([row.key for row in rows], self.device)

    def halve_micro_batch(self) -> None:
        """Continue with half as many rows per forward pass."""
        half = self.sampling.micro_batch // 2
        self.sampling = self.sampling.model_copy(update={"micro_batch": half})
        torch.cuda.empty_cache()


def _finite(output: npt.NDArray[Any]) -> bool:
    return bool(np.isfinite(output).all())


def generate(generation: Generation, monitor: Monitor) -> Iterator[Sample]:
    """Yield the samples in order, reporting to `monitor` after each step of the network.

    Raises `NonFinite` if a sample is not finite, and lets the monitor's `Stopped` through.
    """
    for made in generate_together([Task(generation, monitor)]):
        for _, samples in made:
            if isinstance(samples, Exception):
                raise samples
            yield from samples


@dataclass(frozen=True, eq=False)
class Task:
    """Samples to make, beside those of other tasks, and whom to tell."""

    generation: Generation
    monitor: Monitor


Step = list[tuple[Task, list[Sample] | Exception]]


def generate_together(tasks: Sequence[Task]) -> Iterator[Step]:
    """Make the samples of several tasks in the same forward passes.

    The tasks have one network, one sampling and one precision. Yields, after each step of the
    network, what it finished: of each task the next samples in order, or the error that ends this
    task alone, such as a prompt that is too long or its monitor's `Stopped`. Where a step fails,
    the tasks go on one by one, to find the one at fault. Raises what ends all: `Draining`, and
    errors of the device.
    """
    yield from _isolated([_Unfinished(task) for task in tasks])


def _isolated(group: Sequence["_Unfinished"]) -> Iterator[Step]:
    try:
        yield from _run(group)
    except (Stopped, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        left = [each for each in group if not each.ended]
        if len(left) == 1:
            yield [(left[0].task, error)]
            return
        for each in left:
            yield from _isolated([each])


def _run(group: Sequence["_Unfinished"]) -> Iterator[Step]:
    """Run until all tasks have ended; the micro-batch is halved when the device lacks memory."""
    first = group[0].task.generation
    sampler = Sampler(first.network, first.sampling, precision=first.precision)
    threads = _threads_of(sampler)
    rows = ((row, each) for each in group for row in each.rows())
    taken: dict[Row, _Unfinished] = {}  # by the sampler
    turns = _Turns(group)
    while True:
        size = sampler.sampling.micro_batch
        try:
            steps = sampler.steps(_recorded(chain([*taken.items()], rows), taken))
            for made in _each(steps, threads):
                for row, output in made:
                    taken[row].add(row, output, size)
                ready = turns.take(taken.pop(row) for row, _ in made)
                yield [part for each in ready for part in each.advance()]
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        else:
            return
        sampler.halve_micro_batch()  # outside the handler: the exception keeps tensors alive
        message = f"out of memory: continuing with micro-batches of {size // 2}"
        for each in group:
            with suppress(Stopped):  # the next report raises it again
                each.task.monitor.log(message, level="warning")


class _Turns:
    """Which tasks report after a step."""

    def __init__(self, group: Sequence["_Unfinished"]) -> None:
        self._group = group
        self._all_at = 0.0

    def take(self, touched: Iterable["_Unfinished"]) -> list["_Unfinished"]:
        """Those that the step made samples of, and now and then those that wait for theirs too."""
        chosen = dict.fromkeys(touched)
        now = time.monotonic()
        if now >= self._all_at:
            self._all_at = now + REPORT_EVERY_S
            chosen = dict.fromkeys(self._group)
        return [each for each in chosen if not each.ended]


def _threads_of(sampler: Sampler) -> ThreadChoice:
    """The choice for this network, which outlasts a group of small tasks."""
    if sampler.network not in _choices:
        most = None if sampler.device.type == "cpu" else 1
        _choices[sampler.network] = ThreadChoice(most)
    return _choices[sampler.network]


def _each(steps: Iterator[T], threads: ThreadChoice) -> Iterator[T]:
    while True:
        with threads.step():
            made = next(steps, None)
        if made is None:
            return
        yield made


def _recorded(
    rows: Iterator[tuple[Row, "_Unfinished"]], taken: dict[Row, "_Unfinished"]
) -> Iterator[Row]:
    for row, each in rows:
        taken[row] = each
        yield row


class _Unfinished:
    """A task while it runs: which samples are made, and which are yielded."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.ended = False
        generation = task.generation
        self._next, self._stop = generation.start, generation.stop  # to yield
        self._total, self._made = generation.stop - generation.start, 0
        self._waiting: dict[int, Sample] = {}  # for a sample of a lower index
        self._began = 0.0

    def rows(self) -> Iterator[Row]:
        """The rows that are still to make, until the task ends."""
        self._began = self._began or time.monotonic()
        for index in range(self._next, self._stop):
            if self.ended:
                return
            if index not in self._waiting:
                yield self.task.generation.row(index)

    def add(self, row: Row, output: Output, micro_batch: int) -> None:
        """Take a finished sample."""
        generation, index = self.task.generation, row.index
        labels, prompts = generation.network.shape.labels, generation.prompts
        label = labels[row.label] if row.label is not None else None
        custom_id = prompts[index % len(prompts)].custom_id if prompts else None
        self._waiting[index] = Sample(index, output, label, row.prompt, custom_id, micro_batch)
        self._made += 1

    def advance(self) -> Step:
        """Report progress; then yield the next samples, or the order to stop this task."""
        elapsed_s = time.monotonic() - self._began
        eta_s = elapsed_s / self._made * (self._total - self._made) if self._made else None
        try:
            self.task.monitor.progress(self._made, self._total, "sample", eta_s=eta_s)
        except Draining:
            raise
        except Stopped as order:
            self.ended = True
            return [(self.task, order)]
        samples = []
        while sample := self._waiting.pop(self._next, None):
            samples.append(sample)
            self._next += 1
        self.ended = self._next == self._stop
        return [(self.task, samples)] if samples else []
