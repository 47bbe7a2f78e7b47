"""How long a training may go on, and when in it something is due."""

from dataclasses import dataclass
from typing import NamedTuple


class Reading(NamedTuple):
    """How far a run is, in the unit that will end it first."""

    done: float
    total: float
    unit: str  # step | s


@dataclass(frozen=True)
class Budget:
    """A limit in steps, in seconds, or in both: the one reached first ends the run."""

    max_steps: int | None
    max_seconds: float | None

    def progress(self, step: int, elapsed_s: float) -> float:
        """From 0 to 1. With a limit in steps alone it is a pure function of the step."""
        reading = self.read(step, elapsed_s)
        return min(1.0, reading.done / reading.total)

    def read(self, step: int, elapsed_s: float) -> Reading:
        """Steps or seconds, whichever is further on."""
        readings = []
        if self.max_steps is not None:
            readings.append(Reading(step, self.max_steps, "step"))
        if self.max_seconds is not None:
            readings.append(Reading(min(elapsed_s, self.max_seconds), self.max_seconds, "s"))
        return max(readings, key=lambda reading: reading.done / reading.total)


@dataclass(frozen=True)
class Cadence:
    """When something is due: each `every` steps, or where `every` is 0, `parts` times in a run,
    with at least `least` steps in between.
    """

    every: int
    parts: int
    least: int

    def due(
        self, mark: tuple[int, int], step: int, progress: float
    ) -> tuple[bool, tuple[int, int]]:
        """Whether it is due now, and the mark to keep: (parts seen, step when last due)."""
        part = step // self.every if self.every else int(progress * self.parts)
        seen, last = mark
        if part <= seen or step - last < (1 if self.every else self.least):
            return False, mark
        return True, (part, step)
