"""Steps of a round in threads of their own, so that one that hangs holds up no other.

A step that still runs may do so beside the others, because any number of schedulers may run each.
"""

from collections.abc import Callable
from typing import Any

from db.causes import Cause
from db.errors import GenmillError
from worker.watched import Watched

STEP_S = 30.0  # most steps take a moment, and none that loops over items much more than ten seconds


class Hangs(GenmillError):
    """A step of the scheduler's round hangs."""

    cause = Cause.SERVICE


class StepThreads:
    """Runs steps, and goes on without one that takes longer than `step_s`."""

    def __init__(self, *, step_s: float = STEP_S) -> None:
        self._step_s = step_s
        self._running: dict[str, Watched[int]] = {}

    def run(self, name: str, step: Callable[[], int]) -> int:
        """What the step returns, or 0 while it still gets on; it is not begun again meanwhile.

        Raises what the step raises, and `Hangs` if it has not got on for `step_s`.
        """
        thread = self._running.get(name)
        if thread is None:
            thread = self._running[name] = Watched(name, step)
            thread.start()
            thread.join(self._step_s)
        if not thread.is_alive():
            del self._running[name]
            return thread.outcome()
        if thread.silent_s < self._step_s:
            return 0
        raise Hangs(
            f"it has hung for more than {self._step_s:g} s",
            remedy="the round goes on without it; unless it gets on, the scheduler ends after "
            "GENMILL_HANG_S and is started again",
        )

    def has(self, name: str) -> bool:
        """Whether a step was begun whose end `run` has not reported yet."""
        return name in self._running

    def running(self) -> list[Watched[Any]]:
        """The threads of these steps."""
        return [*self._running.values()]
