"""The table of faults: what each was, how often it was injected, and what became of the jobs."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("fault", "injected", "jobs", "lost", "twice", "slowest, s", "bound, s", "against bound")


@dataclass
class Row:
    """A fault: injections, jobs, those lost, samples committed twice, the slowest recovery.

    A recovery begins with the last injection and ends with the last job; a bound of 0 says that
    the protocol states none.
    """

    fault: str
    bound_s: float = 0.0
    injected: int = 0
    jobs: int = 0
    lost: int = 0
    twice: int = 0
    slowest_s: float = 0.0
    _struck_at: float | None = None

    def inject(self, times: int = 1) -> None:
        """Count an injection, from which the recovery is timed."""
        self.injected += times
        self._struck_at = time.monotonic()

    def recovered(self) -> None:
        """Note that what the last injection struck has recovered."""
        if self._struck_at is not None:
            self.slowest_s = max(self.slowest_s, time.monotonic() - self._struck_at)
            self._struck_at = None

    def add(self, other: "Row") -> None:
        """Add what another process has counted of the same fault."""
        self.injected += other.injected
        self.jobs += other.jobs
        self.lost += other.lost
        self.twice += other.twice
        self.slowest_s = max(self.slowest_s, other.slowest_s)

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        share = f"{self.slowest_s / self.bound_s:.2f}" if self.bound_s else ""
        bound = f"{self.bound_s:.1f}" if self.bound_s else ""
        counts = map(str, (self.injected, self.jobs, self.lost, self.twice))
        return (self.fault, *counts, f"{self.slowest_s:.1f}", bound, share)


class Table:
    """The rows of a session, by fault."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def row(self, fault: str, *, bound_s: float = 0.0) -> Row:
        """The row of a fault; tests of one fault share it."""
        found = self.rows.setdefault(fault, Row(fault))
        found.bound_s = max(found.bound_s, bound_s)
        return found

    def lines(self) -> list[str]:
        """The table as aligned lines."""
        cells: Sequence[Sequence[str]] = [COLUMNS, *(row.cells() for row in self.rows.values())]
        widths = [max(len(line[at]) for line in cells) for at in range(len(COLUMNS))]
        return [
            "  ".join(
                cell.ljust(width) if not at else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in cells
        ]

    def data(self) -> list[dict[str, Any]]:
        """The rows as plain data, by their fields."""
        return [
            {name: value for name, value in asdict(row).items() if not name.startswith("_")}
            for row in self.rows.values()
        ]

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add the `data` of another process."""
        for each in rows:
            self.row(each["fault"], bound_s=each["bound_s"]).add(Row(**each))

    def write(self, path: Path) -> None:
        """Write the rows as JSON."""
        path.write_text(json.dumps(self.data(), indent=1))
