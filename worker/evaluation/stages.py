"""The parts of an evaluation, whose progress is reported as a share of the whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.engine.monitor import Monitor


class Stage:
    """A part of an evaluation; the monitor of the engine while that makes samples.

    Its progress counts from `start` to `stop` percent of the whole. A part without a name of its
    own goes by that of the stage that it is a part of.
    """

    def __init__(
        self, monitor: Monitor, name: str, start: float, stop: float, *, of: str | None = None
    ) -> None:
        """`of` is the version that is measured, by default `name`."""
        self._monitor, self._name, self._start, self._stop = monitor, name, start, stop
        self._of = name if of is None else of

    def tick(self, done: float, total: float) -> None:
        """Report progress; lets the monitor's `Stopped` through."""
        share = self._start + (self._stop - self._start) * done / max(total, 1)
        self._monitor.stages([{"name": self._name, "done": done, "total": total, "unit": ""}])
        self._monitor.progress(round(share, 1), 100, "%", note=self._of)

    def part(self, name: str, start: float, stop: float) -> "Stage":
        """A part of this stage, between two shares of it from 0 to 1."""
        size, name = self._stop - self._start, name or self._name
        first, last = self._start + size * start, self._start + size * stop
        return Stage(self._monitor, name, first, last, of=self._of)

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        """As `tick`."""
        self.tick(done, total)

    def stages(self, under_way: Sequence[Mapping[str, Any]]) -> None:
        """This stage alone is shown."""

    def log(self, message: str, *, level: str = "info") -> None:
        """Pass a line of the log on."""
        self._monitor.log(message, level=level)

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Curves belong to trainings: none here."""

    def preview(self, name: str, path: Path, media_type: str) -> None:
        """Previews belong to trainings: none here."""

    def checkpoint(self, step: int, path: Path) -> None:
        """Checkpoints belong to trainings: none here."""
