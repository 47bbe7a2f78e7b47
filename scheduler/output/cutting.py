"""Cutting long values for people: what `show` commands print unless they are asked for `--full`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from scheduler.output.render import Row, show

LONGEST_FIELD, LONGEST_CELL = 300, 80  # characters
MARK = "…"


def cut_fields(fields: Mapping[str, Any], *, but: Collection[str] = ()) -> dict[str, Any]:
    """The fields with long values cut, at any depth; those named in `but` are whole."""
    return {
        name: value if name in but else _cut_field(value, but) for name, value in fields.items()
    }


def cut_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of a table with long cells cut."""
    return [{name: _cut(value, LONGEST_CELL) for name, value in row.items()} for row in rows]


def _cut_field(value: Any, but: Collection[str]) -> Any:
    nested = isinstance(value, Mapping) and any(isinstance(it, Mapping) for it in value.values())
    return cut_fields(value, but=but) if nested else _cut(value, LONGEST_FIELD)


def _cut(value: Any, longest: int) -> Any:
    text = show(value) if isinstance(value, str | Mapping | list | tuple) else ""
    if len(text) <= longest:
        return value
    return f"{text[: longest - 1].rstrip(' ,')}{MARK}"
