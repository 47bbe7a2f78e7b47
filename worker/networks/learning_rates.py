"""Learning-rate schedules over a training budget, as factors of the peak rate."""

import math

import torch

from worker.networks.network import Clock

FINAL_RATE = 0.02  # where a cosine ends


def warm_up(clock: Clock, steps: int) -> float:
    """Linear warm-up to 1 over `steps`, or over a tenth of the budget if that is shorter."""
    return min(max((clock.step + 1) / max(steps, 1), clock.progress / 0.1), 1)


def cosine(progress: float) -> float:
    """Cosine decay from 1 to `FINAL_RATE` (Loshchilov, Hutter 2016)."""
    falling = (1 + math.cos(math.pi * min(progress, 1))) / 2
    return FINAL_RATE + (1 - FINAL_RATE) * falling


def step(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Take one optimiser step at learning rate `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
