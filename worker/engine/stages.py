"""What goes on in a run: the stages that are under way, and what each took in turn.

Two may be under way at once, as a validation beside the steps is.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LOADING, TRAINING, VALIDATING = "loading", "training", "validating"
MEASURING, STORING = "measuring speed", "storing"

StageReport = dict[str, Any]  # name; done, total and unit where they are known
Advance = Callable[[], None]  # one more is done


class Stages:
    """Shows the stages that are under way, in the order in which they began."""

    def __init__(self, tell: Callable[[list[StageReport]], None]) -> None:
        """`tell` gets them at each change; it must be cheap."""
        self._tell = tell
        self._under_way: dict[str, StageReport] = {}
        self._lock = threading.Lock()

    @contextmanager
    def under_way(self, name: str, total: int = 0, unit: str = "") -> Iterator[Advance]:
        """Show a stage during the block, which calls what it gets at each of `total` parts."""
        done = 0

        def show() -> None:
            counted = {"done": min(done, total), "total": total, "unit": unit} if total else {}
            self._show(name, {"name": name} | counted)

        def advance() -> None:
            nonlocal done
            done += 1
            show()

        show()
        try:
            yield advance
        finally:
            self._show(name, None)

    def _show(self, name: str, report: StageReport | None) -> None:
        with self._lock:
            if report is None:
                self._under_way.pop(name, None)
            else:
                self._under_way[name] = report
            self._tell(list(self._under_way.values()))


class Laps:
    """How long the stages took that follow one another, in seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._at = time.monotonic()

    def skip(self) -> None:
        """Do not count the time since the last end."""
        self._at = time.monotonic()

    def end(self, name: str) -> None:
        """Count the time since the last end for stage `name`."""
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._at, 3)
        self._at = now
