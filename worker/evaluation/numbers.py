"""Numbers as they are collected: with interval, real against real, size and direction."""

import math
from typing import Any

from worker.evaluation.protocol import Number
from worker.metrics.bootstrap import Interval
from worker.metrics.catalogue import METRICS

RESAMPLES = 200  # where a resample costs more than a mean


class Numbers:
    """The numbers of an evaluation, and why others are left out."""

    def __init__(self) -> None:
        self.found: dict[str, Number] = {}
        self.left_out: dict[str, str] = {}

    def suits(self, n: int, *names: str) -> bool:
        """Whether `n` items are enough for these numbers, which take equally many; else say so."""
        fewest = METRICS[names[0]].fewest
        if n < fewest:
            self.leave_out(f"it takes {fewest:,} items, and there are {n:,}", *names)
        return n >= fewest

    def add(self, name: str, interval: Interval, *, n: int, real: float | None = None) -> None:
        """Add a number; one that is not finite is left out, because JSON cannot hold it."""
        if not all(map(math.isfinite, interval)):
            self.left_out[name] = f"it is {interval.value} here"
            return
        metric = METRICS[name]
        known = real if real is not None and math.isfinite(real) else None
        value, low, high = map(float, interval)
        if metric.is_share:  # the shift of a bootstrap interval could leave that range
            low, high = max(low, 0.0), min(high, 1.0)
        # by rounding, the interval of equal resamples may miss the value
        self.found[name] = Number(value, min(low, value), max(high, value), known, n, metric.better)

    def leave_out(self, reason: str, *names: str) -> None:
        """Say why numbers are missing."""
        self.left_out |= dict.fromkeys(names, reason)

    @property
    def data(self) -> dict[str, Any]:
        """As the record keeps them, by name."""
        return {name: number._asdict() for name, number in sorted(self.found.items())}
