"""The interface through which the engine reports, and through which it is stopped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Monitor(Protocol):
    """What the engine calls while it works. Any call may raise `db.errors.Stopped`: let it through.

    The worker implements it by the shard's lease, tests by lists.
    """

    def progress(
        self, done: float, total: float, unit: str, *, eta_s: float | None = None, note: str = ""
    ) -> None:
        """Report progress; called at least once per micro-batch or step, so it must be cheap."""

    def stages(self, under_way: Sequence[Mapping[str, Any]]) -> None:
        """Tell which stages are under way from now on: each its `name`, and with parts to count
        `done`, `total` and `unit`. Must be cheap; raises nothing.
        """

    def log(self, message: str, *, level: str = "info") -> None:
        """Add a line to the job's log."""

    def points(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the job's curves; a step written twice keeps the later values."""

    def preview(self, name: str, path: Path, media_type: str) -> None:
        """Store a file of samples made so far."""

    def checkpoint(self, step: int, path: Path) -> None:
        """Store a checkpoint file; it is stored when this returns."""
