"""Rendering: tables, fields, sizes and times for people, JSON for programs.

On a terminal, tables are drawn by rich; in a pipe they are plain aligned text. Control characters
are removed from everything that a user or a model wrote, so that it cannot control the terminal.
"""

import json
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

# C0, DEL and C1 controls, and the marks that reorder text (Unicode TR 36, "bidi spoofing").
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_JSON_CONTROL = re.compile(r"[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

# Columns that are never folded: people copy their values, or compare them down the column.
_WHOLE = {"id", "job", "kind", "status", "size", "version", "sha256", "created_at", "next_due"}

_NARROWEST = 12  # characters of any other column

Row = Mapping[str, Any]


def clean(text: str, *, keep_lines: bool = False) -> str:
    """`text` without control characters; `keep_lines` keeps line ends and tabs."""

    def replace(match: re.Match[str]) -> str:
        return match[0] if keep_lines and match[0] in "\n\t" else " " if match[0] in "\n\t" else ""

    return _CONTROL.sub(replace, text)


def print_json(document: Any, *, line: bool = False) -> None:
    """Write one JSON document, or with `line` one compact line of a stream, to stdout."""
    text = json.dumps(
        document,
        ensure_ascii=False,
        allow_nan=False,
        indent=None if line else 2,
        separators=(",", ":") if line else None,
        default=_to_json,
    )
    click.echo(_JSON_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def print_table(rows: Sequence[Row], columns: Sequence[str], *, heading: str = "") -> None:
    """Write `rows` under `columns`, drawn on a terminal and plain in a pipe.

    Without rows, say so on stderr. A `heading` stands above the table, after an empty line.
    """
    if heading:
        click.echo(f"\n{heading}")
    if not rows:
        click.echo("nothing to show", err=True)
        return
    if sys.stdout.isatty():
        _draw_table(rows, columns)
        return
    lines = [[column.upper() for column in columns]]
    lines += [[show(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(_width, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def print_fields(fields: Mapping[str, Any]) -> None:
    """Write one `name  value` line per field; empty ones are left out, nested ones named `a.b`."""
    shown = {name: show(value) for name, value in _flat(fields)}
    width = max((len(name) for name, text in shown.items() if text), default=0)
    for name, text in shown.items():
        if text:
            click.echo(f"{name.ljust(width)}  {text}")


def draw_chain(jobs: Sequence[Row], marked: str) -> Iterator[str]:
    """A line for each job of a chain, indented below the one that it waits for.

    The job `marked` has an asterisk.
    """
    after: dict[str | None, list[Row]] = {}
    known = {job["id"] for job in jobs}
    for job in jobs:
        after.setdefault(job["after"] if job["after"] in known else None, []).append(job)
    waiting = [(0, job) for job in reversed(after.get(None, []))]
    while waiting:
        depth, job = waiting.pop()
        indent = "   " * (depth - 1) + ("└─ " if depth else "")
        error = f": {job['error']}" if job["error"] else ""
        retried = f", a retry of {job['retry_of']}" if job["retry_of"] else ""
        told = f"{job['kind']} {job['model'] or ''} {job['status']}{retried}{error}"
        yield clean(f"{indent}{job['id']} {told}{' *' if job['id'] == marked else ''}")
        waiting += [(depth + 1, each) for each in reversed(after.get(job["id"], []))]


def show(value: Any) -> str:
    """`value` as one line for people."""
    match value:
        case None:
            shown = ""
        case bool():
            shown = "yes" if value else "no"
        case datetime():
            shown = to_iso(value)
        case float():
            shown = f"{value:.4g}"
        case Mapping():
            pairs = ((name, show(item)) for name, item in value.items())
            shown = ", ".join(f"{name}={text}" for name, text in pairs if text)
        case list() | tuple():
            shown = ", ".join(show(item) for item in value)
        case _:
            shown = str(value)
    return clean(shown)


def to_prefix(id_: str) -> str:
    """The part of an id that people read and type: its time to the millisecond and random bits."""
    return id_[:18]


def to_iso(when: datetime) -> str:
    """ISO 8601 in UTC to the second, as in 2026-03-01T12:00:00Z."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_size(size_bytes: int) -> str:
    """Bytes, as in 1.5 MiB."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def to_count(number: int, noun: str) -> str:
    """A number of things, as in `no samples`, `1 sample` or `300 samples`."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def first_lines(lines: Sequence[str], limit: int = 20) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - limit
    return [*lines[:limit], *([f"and {more:,} more"] if more > 0 else [])]


def to_duration(seconds: float) -> str:
    """Seconds, as in 42s, 3m05s or 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 2 * 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d"


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"not JSON: {type(value).__name__}")


def _flat(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Flatten mappings of mappings into names like `a.b`."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and any(isinstance(each, Mapping) for each in value.values()):
            yield from ((f"{name}.{inner}", each) for inner, each in _flat(value))
        else:
            yield name, value


def _draw_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    # rich takes longer to import than everything else that a command needs
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.measure import Measurement  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    # Text, so that rich takes no cell for markup
    lines = [[Text(_brief(column, row.get(column))) for column in columns] for row in rows]
    for place, column in enumerate(columns):
        widest = max(len(column), *(line[place].cell_len for line in lines))
        least = widest if column in _WHOLE else min(widest, _NARROWEST)
        table.add_column(column.upper(), overflow="fold", min_width=least)
    for line in lines:
        table.add_row(*line)
    console = Console()
    # rich drops columns that do not fit; let the terminal wrap lines instead
    roomy = console.options.update(max_width=sys.maxsize)
    console.width = max(console.width, Measurement.get(console, roomy, table).minimum)
    console.print(table)


def _brief(column: str, value: Any) -> str:
    """As `show`, but short enough for a terminal: a prefix of an id, the age of a time."""
    if isinstance(value, datetime):
        age_s = (datetime.now(UTC) - value).total_seconds()
        return f"{to_duration(age_s)} ago" if age_s >= 0 else f"in {to_duration(-age_s)}"
    return to_prefix(show(value)) if column in {"id", "job"} else show(value)


def _width(text: str) -> int:
    # East Asian wide characters take two columns (Unicode TR 11).
    return sum(2 if unicodedata.east_asian_width(mark) in "WF" else 1 for mark in text)
