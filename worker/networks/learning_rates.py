"""Learning rates over a training's budget, as shares of their peaks."""

import math

import torch

from worker.networks.network import Clock

FINAL_RATE = 0.02  # where a cosine ends


def warm_up(clock: Clock, steps: int) -> float:
    """Up to 1 in a line, over so many steps, or a tenth of the budget where that is sooner."""
    return min(max((clock.step + 1) / max(steps, 1), clock.progress / 0.1), 1)


def cosine(progress: float) -> float:
    """From 1 to almost nothing (Loshchilov, Hutter 2016)."""
    falling = (1 + math.cos(math.pi * min(progress, 1))) / 2
    return FINAL_RATE + (1 - FINAL_RATE) * falling


def step(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """One step at a rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
