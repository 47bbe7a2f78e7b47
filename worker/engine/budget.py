"""A training run's budget, and what is done at intervals during it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from worker.networks.params import TrainingParams

POINTS = 200  # of a run's training curve, about
VALIDATIONS, PREVIEWS = 10, 4  # of a run, if its parameters do not say
MIN_STEPS = 50  # between two of either


class Spent(NamedTuple):
    """How much of a budget is spent, in the unit of the limit that will be reached first."""

    done: float
    total: float
    unit: str  # steps | s


@dataclass(frozen=True)
class Budget:
    """A limit in steps, in seconds, or both: the first one reached ends the run."""

    max_steps: int | None
    max_seconds: float | None

    def progress(self, step: int, elapsed_s: float) -> float:
        """The share of the budget that is spent, 0 to 1; a pure function of the step if only steps
        are limited.
        """
        spent = self.spent(step, elapsed_s)
        return min(1.0, spent.done / spent.total)

    def spent(self, step: int, elapsed_s: float) -> Spent:
        """Steps or seconds, whichever is nearer to its limit."""
        limits = []
        if self.max_steps is not None:
            limits.append(Spent(step, self.max_steps, "steps"))
        if self.max_seconds is not None:
            limits.append(Spent(min(elapsed_s, self.max_seconds), self.max_seconds, "s"))
        return max(limits, key=lambda spent: spent.done / spent.total)


@dataclass(frozen=True)
class Cadence:
    """How often something is done: every `every` steps or, if `every` is 0, `times` in a run, at
    least `min_steps` steps apart.
    """

    every: int
    times: int
    min_steps: int

    def due(
        self, last: tuple[int, int], step: int, progress: float
    ) -> tuple[bool, tuple[int, int]]:
        """Whether it is due now, and the (period, step) of the last time it was due."""
        period = step // self.every if self.every else int(progress * self.times)
        last_period, last_step = last
        if period <= last_period or step - last_step < (1 if self.every else self.min_steps):
            return False, last
        return True, (period, step)

    def steps_apart(self, max_steps: int) -> float:
        """The steps between two times in a run of `max_steps`."""
        return self.every or max(max_steps / self.times, self.min_steps)


def cadences(params: TrainingParams) -> dict[str, Cadence]:
    """What is done at intervals during a run."""
    return {
        "points": Cadence(0, POINTS, 1),
        "validation": Cadence(params.validate_every, VALIDATIONS, MIN_STEPS),
        "preview": Cadence(params.preview_every, PREVIEWS, MIN_STEPS),
    }


class TimeShare:
    """Whether what is done now and then keeps to its share of a run's time, by its last cost."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._spent_s = self._last_s = 0.0

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Measure the `with` block, on whichever thread it runs."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._last_s = time.monotonic() - began
            self._spent_s += self._last_s

    def allows(self, elapsed_s: float) -> bool:
        """Whether once more is within the share of a run that has taken so long."""
        return self._spent_s + self._last_s <= self._share * elapsed_s
