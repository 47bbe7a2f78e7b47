"""A training run's budget, and what is done at intervals during it."""

from dataclasses import dataclass
from typing import NamedTuple


class Spent(NamedTuple):
    """How much of a budget is spent, in the unit of the limit that will be reached first."""

    done: float
    total: float
    unit: str  # step | s


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
            limits.append(Spent(step, self.max_steps, "step"))
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
