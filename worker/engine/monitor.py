"""How the engine speaks to whoever runs it: progress, curves, previews, checkpoints, stops."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Monitor(Protocol):
    """The engine's only way out. Every call may raise a `db.errors.Stopped`: let it through.

    The worker's implementation writes to the record under the shard's fence; a test's keeps lists.
    """

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        """Tell how far the work is; called at least once a micro-batch or step. Cheap."""

    def log(self, message: str, *, level: str = "info") -> None:
        """Write a line into the job's log."""

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the job's curves; a step written again replaces what was there."""

    def preview(self, name: str, path: Path, media_type: str) -> None:
        """Store a contact sheet, text samples or a drawing now, while the work goes on."""

    def checkpoint(self, step: int, path: Path) -> None:
        """Store a checkpoint file; it exists once this returns."""
