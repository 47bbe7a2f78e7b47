"""Samples from a network, micro-batch by micro-batch. Knows no queue and no family by name.

Sample i depends on the weights, the settings, the seed and i alone: its noise is keyed by
(seed, i), and every forward has the same number of rows, padded where fewer are asked for.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from db.errors import NonFinite
from worker.engine.device import autocast
from worker.engine.monitor import Monitor
from worker.families import SamplingParams
from worker.families.network import Draw, Network, Output, Row
from worker.specs import Prompt


@dataclass(frozen=True)
class Generation:
    """Samples `start` to `stop` of a generate job.

    `label` is one class's number for all samples; `prompts` are taken in turn. With neither, a
    network with labels takes label i modulo their number.
    """

    network: Network
    sampling: SamplingParams
    seed: int
    start: int
    stop: int
    label: int | None = None
    prompts: tuple[Prompt, ...] = ()
    precision: str = "fp32"

    def row(self, index: int) -> Row:
        """What sample `index` is made from."""
        labels = len(self.network.shape.labels)
        label = self.label if self.label is not None or not labels else index % labels
        prompt = self.prompts[index % len(self.prompts)].prompt if self.prompts else None
        return Row(index, label, prompt)


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
        self.network = network.eval()
        self.sampling = sampling
        self.seed = seed
        self.precision = precision
        self.device = next(network.parameters()).device

    def make(self, rows: Sequence[Row]) -> list[Output]:
        """The outputs of at most `sampling.micro_batch` rows, in order."""
        size = self.sampling.micro_batch
        padded = [*rows, *[rows[-1]] * (size - len(rows))]
        draw = Draw(self.seed, [row.index for row in padded], self.device)
        with torch.inference_mode(), autocast(self.device, self.precision):
            outputs = self.network.sample(padded, draw, self.sampling)[: len(rows)]
        for row, output in zip(rows, outputs, strict=True):
            _require_finite(row.index, output)
        return outputs

    def halve(self) -> bool:
        """Go on with half the rows; False where there is but one."""
        size = self.sampling.micro_batch // 2
        if size:
            self.sampling = self.sampling.model_copy(update={"micro_batch": size})
            torch.cuda.empty_cache()
        return bool(size)


def generate(generation: Generation, monitor: Monitor) -> Iterator[Sample]:
    """Yield the samples in order, telling `monitor` after each micro-batch.

    Raises `NonFinite` where a sample is not finite, and lets the monitor's `Stopped` through.
    """
    sampler = Sampler(
        generation.network,
        generation.sampling,
        seed=generation.seed,
        precision=generation.precision,
    )
    began, index = time.monotonic(), generation.start
    while index < generation.stop:
        stop = min(generation.stop, index + sampler.sampling.micro_batch)
        rows = [generation.row(i) for i in range(index, stop)]
        outputs = _make_or_halve(sampler, rows, monitor)
        for row, output in zip(rows, outputs, strict=False):
            yield _sample(generation, row, output, sampler.sampling.micro_batch)
        index += len(outputs)
        done, total = index - generation.start, generation.stop - generation.start
        eta_s = (time.monotonic() - began) / done * (total - done)
        monitor.progress(done, total, "sample", eta_s=eta_s)


def _make_or_halve(sampler: Sampler, rows: Sequence[Row], monitor: Monitor) -> list[Output]:
    """Outputs of the first rows, as many as the device's memory allows at once."""
    while True:
        try:
            return sampler.make(rows[: sampler.sampling.micro_batch])
        except torch.OutOfMemoryError:
            if not sampler.halve():
                raise
        size = sampler.sampling.micro_batch
        monitor.log(f"out of memory: going on with micro-batches of {size}", level="warning")


def _sample(generation: Generation, row: Row, output: Output, micro_batch: int) -> Sample:
    labels, prompts = generation.network.shape.labels, generation.prompts
    label = labels[row.label] if row.label is not None else None
    custom_id = prompts[row.index % len(prompts)].custom_id if prompts else None
    return Sample(row.index, output, label, row.prompt, custom_id, micro_batch)


def _require_finite(index: int, output: Output) -> None:
    """Refuse numbers that are not finite; pixels and text were checked where they were made."""
    if isinstance(output, np.ndarray) and not np.isfinite(output).all():
        raise NonFinite(f"sample {index} holds numbers that are NaN or infinite")
