"""Forward passes of one fixed size, and several streams of them at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from db.errors import NonFinite
from worker.engine.device import autocast, deterministic
from worker.networks.network import Draw, Finished, Network, Output, Row
from worker.networks.params import SamplingParams


class Sampler:
    """Samples in forward passes of one fixed size, halved when a GPU runs out of memory."""

    def __init__(
        self,
        network: Network,
        sampling: SamplingParams,
        *,
        precision: str = "fp32",
        after_step: Callable[[], None] | None = None,
    ) -> None:
        """`after_step` is called after each step of `make`; what it raises ends that."""
        deterministic()
        self.network = network.eval()
        self.sampling = sampling
        self.precision = precision
        self.after_step = after_step
        self.device = next(network.parameters()).device

    def make(self, rows: Sequence[Row]) -> list[Output]:
        """The rows' outputs, in order; out of memory, it tries half the micro-batch."""
        while True:
            try:
                made = dict[Row, Output]()
                for step in self.steps(iter(rows)):
                    made |= dict(step)
                    if self.after_step:
                        self.after_step()
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
