"""The parts of an evaluation, whose progress is reported as a share of the whole."""

from collections.abc import Mapping
from pathlib import Path

from worker.engine.monitor import Monitor


class Stage:
    """A part of an evaluation; the monitor of the engine while that makes samples.

    Its progress counts from `start` to `stop` percent of the whole.
    """

    def __init__(self, monitor: Monitor, name: str, start: float, stop: float) -> None:
        self._monitor, self._name, self._start, self._stop = monitor, name, start, stop

    def tick(self, done: float, total: float) -> None:
        """Report progress; lets the monitor's `Stopped` through."""
        share = self._start + (self._stop - self._start) * done / max(total, 1)
        self._monitor.progress(round(share, 1), 100, "%", note=self._name)

    def part(self, name: str, start: float, stop: float) -> "Stage":
        """A part of this stage, between two shares of it from 0 to 1."""
        size = self._stop - self._start
        return Stage(self._monitor, name, self._start + size * start, self._start + size * stop)

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        """As `tick`."""
        self.tick(done, total)

    def log(self, message: str, *, level: str = "info") -> None:
        """Pass a line of the log on."""
        self._monitor.log(message, level=level)

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Curves belong to trainings: none here."""

    def preview(self, name: str, path: Path, media_type: str) -> None:
        """Previews belong to trainings: none here."""

    def checkpoint(self, step: int, path: Path) -> None:
        """Checkpoints belong to trainings: none here."""
