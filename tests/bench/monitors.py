"""A monitor that does nothing."""

from collections.abc import Mapping
from pathlib import Path


class NullMonitor:
    """Fulfils `worker.engine.monitor.Monitor` at no cost."""

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        """Nothing."""

    def log(self, message: str, *, level: str = "info") -> None:
        """Nothing."""

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def preview(self, name: str, path: Path, media_type: str) -> None:
        """Nothing."""

    def checkpoint(self, step: int, path: Path) -> None:
        """Nothing."""
