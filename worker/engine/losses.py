"""Losses of a run, left on the device until they are needed.

Reading a number waits for the device, which then has no work until the next step is queued.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from worker.networks.network import Losses

MAX_UNREAD = 16  # steps that are queued on a GPU without waiting for it


class TrainingLosses:
    """Means of the losses of each step, and the first loss that is not finite."""

    def __init__(self) -> None:
        self._unread: list[tuple[int, Losses]] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, step: int, losses: Losses) -> str | None:
        """Add the losses after `step` steps, read at once on the CPU and now and then on a GPU.

        Returns what was read that is not finite, for people; None if all is well.
        """
        self._unread.append((step, losses))
        on_cpu = all(value.device.type == "cpu" for value in losses.values())
        return self.read() if on_cpu or len(self._unread) >= MAX_UNREAD else None

    def read(self) -> str | None:
        """Read the losses that are still on the device; returns the same as `add`."""
        unread, self._unread = self._unread, []
        values = to_numbers([losses for _, losses in unread])
        for each in values:
            for name, value in each.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += len(values)
        found = (not_finite(each, step) for (step, _), each in zip(unread, values, strict=True))
        return next((reason for reason in found if reason), None)

    def take_means(self) -> dict[str, float]:
        """The means of all that was read since the last call."""
        means = {name: total / self._count for name, total in self._sums.items()}
        self.clear()
        return means

    def clear(self) -> None:
        """Forget the losses so far."""
        self._unread, self._sums, self._count = [], {}, 0


def to_numbers(losses: Sequence[Losses]) -> list[dict[str, float]]:
    """Several losses as floats, with one synchronisation with the device for all."""
    if not losses:
        return []
    # float64 is exact for counts too
    tensors = [value.double() for each in losses for value in each.values()]
    values = iter(torch.stack(tensors).tolist())
    return [{name: next(values) for name in each} for each in losses]


def not_finite(losses: Mapping[str, float], step: int) -> str | None:
    """Which of the losses is NaN or infinite, for people; None if none is."""
    bad = (f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value))
    return next((f"{found} at step {step}" for found in bad), None)
