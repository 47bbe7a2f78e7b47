"""A bar of the bytes of a transfer, on a terminal; nothing in a pipe."""

import sys
from typing import Any


class TransferBar:
    """Shows how many bytes have come, of how many if that is known, and how fast."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> "TransferBar":
        if sys.stderr.isatty():
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def expect(self, total: int | None) -> None:
        """Say how many bytes are to come; None if nobody knows."""
        if self._progress is not None:
            self._progress.update(self._task, total=total)

    def advance(self, size: int) -> None:
        """Say that so many bytes have come. May be called from any thread."""
        if self._progress is not None:
            self._progress.advance(self._task, size)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=None)
        self._progress.start()
