"""A monitor that does nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class NullMonitor:
    """Fulfils `worker.engine.monitor.Monitor` at no cost."""

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        """Ignored."""

    def stages(self, under_way: Sequence[Mapping[str, Any]]) -> None:
        """Ignored."""

    def log(self, message: str, *, level: str = "info") -> None:
        """Ignored."""

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Ignored."""

    def preview(self, name: str, path: Path, media_type: str) -> None:
        """Ignored."""

    def checkpoint(self, step: int, path: Path) -> None:
        """Ignored."""
