"""Single values as text for people: sizes, counts, spans of time, ids.

Control characters are removed from everything that a user or a model wrote, so that it cannot
control the terminal.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

# C0, DEL and C1 controls, and the marks that reorder text (Unicode TR 36, "bidi spoofing").
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

PREFIX = 18  # characters of an id: its time to the millisecond and some random bits
_ID = re.compile(r"\b([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4})-[0-9a-f]{4}-[0-9a-f]{12}\b")
_UNITS = ((36 * 3600, 86_400, "days"), (90 * 60, 3600, "h"), (60, 60, "min"), (0, 1, "s"))


def clean(text: str, *, keep_lines: bool = False) -> str:
    """`text` without control characters; `keep_lines` keeps line ends and tabs."""

    def replace(match: re.Match[str]) -> str:
        return match[0] if keep_lines and match[0] in "\n\t" else " " if match[0] in "\n\t" else ""

    return _CONTROL.sub(replace, text)


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


def flatten(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Flatten mappings of mappings into names like `a.b`."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and any(isinstance(each, Mapping) for each in value.values()):
            yield from ((f"{name}.{inner}", each) for inner, each in flatten(value))
        else:
            yield name, value


def to_prefix(id_: str) -> str:
    """The part of an id that people read and type."""
    return id_[:PREFIX]


def shorten_ids(text: str) -> str:
    """`text` with the part of each whole id in it that people read and type."""
    return _ID.sub(r"\1", text)


def to_iso(when: datetime) -> str:
    """ISO 8601 in UTC to the second, as in 2026-03-01T12:00:00Z."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_age(when: datetime) -> str:
    """How long ago or ahead a time is, as in `2 days ago` or `in 3 h`."""
    seconds = (when - datetime.now(UTC)).total_seconds()
    size, unit = next((size, unit) for least, size, unit in _UNITS if abs(seconds) >= least)
    told = f"{abs(seconds) / size:.0f} {unit}"
    return f"in {told}" if seconds > 0 else f"{told} ago"


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
