"""Samples from a network, step by step. Knows no queue and no family by name.

Sample i depends on the weights, the settings, the seed and i alone: its noise is keyed by
(seed, i), and every forward has the same number of rows, padded where fewer are asked for.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch

from db.errors import NonFinite
from worker.engine.device import autocast, deterministic
from worker.engine.monitor import Monitor
from worker.feeds.source_images import GivenImages
from worker.networks.network import Draw, Finished, Network, Output, Row, SourceImage
from worker.networks.params import SamplingParams
from worker.specs import Prompt


@dataclass(frozen=True)
class Generation:
    """Samples `start` to `stop` of a generate job.

    `label` is one class's number for all samples; `prompts` are taken in turn, and so are `given`
    images, whose own classes count where no label is asked for. With none of these, a network with
    labels takes them in turn.
    """

    network: Network
    sampling: SamplingParams
    seed: int
    start: int
    stop: int
    label: int | None = None
    prompts: tuple[Prompt, ...] = ()
    precision: str = "fp32"
    given: GivenImages | None = None

    def row(self, index: int) -> Row:
        """What sample `index` is made from."""
        images = tuple(map(self._image, self.sampling.source_indices(index))) if self.given else ()
        prompt = self.prompts[index % len(self.prompts)].prompt if self.prompts else None
        return Row(index, self._label(index, images), prompt, images)

    def _image(self, place: int) -> SourceImage:
        assert self.given is not None  # noqa: S101 - its caller asked
        pixels, label = self.given.at(place)
        return SourceImage(pixels, label if self.label is None else self.label)

    def _label(self, index: int, images: Sequence[SourceImage]) -> int | None:
        """The class of a sample; none between images of two classes."""
        labels = len(self.network.shape.labels)
        if self.label is not None or not labels:
            return self.label
        if images:
            classes = {image.label for image in images}
            return classes.pop() if len(classes) == 1 else None
        return index // self.sampling.samples_per_label % labels


@dataclass(frozen=True)
class Sample:
    """One sample, and what it was made from."""

    index: int
    output: Output
    label: str | None
    prompt: str | None
    custom_id: str | None
    micro_batch: int  # rows of the forward that made it; halved where a GPU's memory was short


class Sampler:
    """Makes rows in forwards of one fixed size, which halves where a GPU's memory is short."""

    def __init__(
        self, network: Network, sampling: SamplingParams, *, seed: int, precision: str = "fp32"
    ) -> None:
        deterministic()
        self.network = network.eval()
        self.sampling = sampling
        self.seed = seed
        self.precision = precision
        self.device = next(network.parameters()).device

    def make(self, rows: Sequence[Row]) -> list[Output]:
        """The outputs of some rows, in order; where memory is short, of fewer at once."""
        while True:
            try:
                made = {
                    row.index: output for step in self.steps(iter(rows)) for row, output in step
                }
                return [made[row.index] for row in rows]
            except torch.OutOfMemoryError:
                if self.sampling.micro_batch == 1:
                    raise
            self.halve()  # out of the handler, for the error holds what filled the memory

    def steps(self, rows: Iterator[Row]) -> Iterator[list[Finished]]:
        """What the network finishes step by step: often nothing, and not in order."""
        draws = partial(Draw, self.seed, device=self.device)
        stream = self.network.stream(rows, draws, self.sampling)
        while True:
            # entered for each step, for a generator's contexts would stay on for its caller
            with torch.inference_mode(), autocast(self.device, self.precision):
                made = next(stream, None)
            if made is None:
                return
            for row, output in made:
                _require_finite(row.index, output)
            yield made

    def halve(self) -> None:
        """Go on with half the rows at once."""
        half = self.sampling.micro_batch // 2
        self.sampling = self.sampling.model_copy(update={"micro_batch": half})
        torch.cuda.empty_cache()


def generate(generation: Generation, monitor: Monitor) -> Iterator[Sample]:
    """Yield the samples in order, telling `monitor` after each step of the network.

    Raises `NonFinite` where a sample is not finite, and lets the monitor's `Stopped` through.
    """
    began, total = time.monotonic(), generation.stop - generation.start
    early: dict[int, Sample] = {}  # those made before one of a lower index
    index, done = generation.start, 0
    for made in _steps(generation, monitor):
        early |= {sample.index: sample for sample in made}
        done += len(made)
        eta_s = (time.monotonic() - began) / done * (total - done) if done else None
        monitor.progress(done, total, "sample", eta_s=eta_s)
        while index in early:
            yield early.pop(index)
            index += 1


def _steps(generation: Generation, monitor: Monitor) -> Iterator[list[Sample]]:
    """What each step makes, with as many rows at once as the device's memory allows."""
    sampler = Sampler(
        generation.network,
        generation.sampling,
        seed=generation.seed,
        precision=generation.precision,
    )
    rows = map(generation.row, range(generation.start, generation.stop))
    under_way: dict[int, Row] = {}
    while True:
        size = sampler.sampling.micro_batch
        try:
            for made in sampler.steps(_noted(chain([*under_way.values()], rows), under_way)):
                yield [_sample(generation, *pair, size) for pair in made]
                for row, _ in made:
                    del under_way[row.index]
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        else:
            return
        sampler.halve()  # out of the handler, for the error holds what filled the memory
        message = f"out of memory: going on with micro-batches of {size // 2}"
        monitor.log(message, level="warning")


def _noted(rows: Iterator[Row], under_way: dict[int, Row]) -> Iterator[Row]:
    """The rows, each noted when its work begins."""
    for row in rows:
        under_way[row.index] = row
        yield row


def _sample(generation: Generation, row: Row, output: Output, micro_batch: int) -> Sample:
    labels, prompts = generation.network.shape.labels, generation.prompts
    label = labels[row.label] if row.label is not None else None
    custom_id = prompts[row.index % len(prompts)].custom_id if prompts else None
    return Sample(row.index, output, label, row.prompt, custom_id, micro_batch)


def _require_finite(index: int, output: Output) -> None:
    """Refuse numbers that are not finite; pixels and text were checked where they were made."""
    if isinstance(output, np.ndarray) and not np.isfinite(output).all():
        raise NonFinite(f"sample {index} holds numbers that are NaN or infinite")
