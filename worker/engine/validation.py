"""Losses over held-out data."""

from collections.abc import Callable, Iterable

import torch

from worker.engine.device import autocast
from worker.engine.losses import to_numbers
from worker.engine.run import Training
from worker.networks.network import Batch, Network


def mean_losses(
    network: Network,
    batches: Iterable[Batch],
    training: Training,
    *,
    after_batch: Callable[[], None],
) -> dict[str, float]:
    """Mean losses over batches, weighted by what each counts; empty if there are none."""
    network.eval()
    sums, count = dict[str, float](), 0.0
    with torch.inference_mode(), autocast(training.device, training.precision):
        for batch in batches:
            (losses,) = to_numbers([network.validate(batch)])
            weight = losses.pop("count", len(batch.data))
            count += weight
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value * weight
            after_batch()
    return {name: value / count for name, value in sums.items()}
