"""Sampling from a network. Knows no queue and no family by name.

Sample i depends only on the weights, the settings, the seed and i: its noise is keyed by (seed, i),
and every forward pass has the same number of rows, padded if fewer are asked for.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from db.errors import NonFinite
from worker.engine.device import autocast, deterministic
from worker.engine.monitor import Monitor
from worker.feeds.source_images import SourceImages
from worker.networks.network import Draw, Finished, Network, Output, Row, SourceImage
from worker.networks.params import SamplingParams
from worker.specs import Prompt


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


@dataclass(frozen=True)
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
                if isinstance(output, np.ndarray) and not np.isfinite(output).all():
                    raise NonFinite(f"sample {row.index} holds numbers that are NaN or infinite")
            yield made

    def _draw(self, rows: Sequence[Row]) -> Draw:
        return Draw([row.key for row in rows], self.device)

    def halve_micro_batch(self) -> None:
        """Continue with half as many rows per forward pass."""
        half = self.sampling.micro_batch // 2
        self.sampling = self.sampling.model_copy(update={"micro_batch": half})
        torch.cuda.empty_cache()


def generate(generation: Generation, monitor: Monitor) -> Iterator[Sample]:
    """Yield the samples in order, reporting to `monitor` after each step of the network.

    Raises `NonFinite` if a sample is not finite, and lets the monitor's `Stopped` through.
    """
    began, total = time.monotonic(), generation.stop - generation.start
    waiting: dict[int, Sample] = {}  # for a sample of a lower index
    index, done = generation.start, 0
    for made in _steps(generation, monitor):
        waiting |= {sample.index: sample for sample in made}
        done += len(made)
        eta_s = (time.monotonic() - began) / done * (total - done) if done else None
        monitor.progress(done, total, "sample", eta_s=eta_s)
        while index in waiting:
            yield waiting.pop(index)
            index += 1


def _steps(generation: Generation, monitor: Monitor) -> Iterator[list[Sample]]:
    """The samples of each step; the micro-batch is halved when the device runs out of memory."""
    sampler = Sampler(generation.network, generation.sampling, precision=generation.precision)
    rows = map(generation.row, range(generation.start, generation.stop))
    unfinished: dict[Row, None] = {}  # taken by the sampler
    while True:
        size = sampler.sampling.micro_batch
        try:
            for made in sampler.steps(_recorded(chain([*unfinished], rows), unfinished)):
                yield [_sample(generation, *pair, size) for pair in made]
                for row, _ in made:
                    del unfinished[row]
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        else:
            return
        sampler.halve_micro_batch()  # outside the handler: the exception keeps tensors alive
        message = f"out of memory: continuing with micro-batches of {size // 2}"
        monitor.log(message, level="warning")


def _recorded(rows: Iterator[Row], taken: dict[Row, None]) -> Iterator[Row]:
    for row in rows:
        taken[row] = None
        yield row


def _sample(generation: Generation, row: Row, output: Output, micro_batch: int) -> Sample:
    labels, prompts = generation.network.shape.labels, generation.prompts
    label = labels[row.label] if row.label is not None else None
    custom_id = prompts[row.index % len(prompts)].custom_id if prompts else None
    return Sample(row.index, output, label, row.prompt, custom_id, micro_batch)
