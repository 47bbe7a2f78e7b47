"""Time spans, as people type them."""

import re
from datetime import timedelta
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = timedelta(days=36_500)  # longer ones lead to dates that cannot be represented


def as_typed(seconds: float) -> str:
    """A time span as people type it: in the largest unit of which it is a multiple."""
    for unit in "dhms":
        if seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


class Duration(click.ParamType[timedelta]):
    """A time span such as 90s, 15m, 1h, 7d or 2w; a bare number means seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Parse `value`."""
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d{1,9})([smhdw]?)", str(value).strip())
        if not match or int(match[1]) == 0:
            self.fail(f"{value!r} is not a time span; write it as 90s, 15m, 1h or 7d", param, ctx)
        seconds = int(match[1]) * _UNITS[match[2] or "s"]
        if seconds > _LONGEST.total_seconds():
            self.fail(f"{value!r} is longer than a hundred years, {_LONGEST.days}d", param, ctx)
        return timedelta(seconds=seconds)
