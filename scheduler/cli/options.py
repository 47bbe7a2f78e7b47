"""Options that many commands share, and the types of their values."""

import re
from datetime import timedelta
from typing import Any

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = timedelta(days=36_500)  # longer ones lead to dates that cannot be represented


class Split(click.ParamType[tuple[int, ...]]):
    """Whole numbers separated by commas, as in `90,5,5`; `worker.data.split` checks them."""

    name = "split"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse `value`."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not three whole numbers as in 90,5,5", param, ctx)


class Numbers(click.ParamType[tuple[range, ...]]):
    """Numbers of samples and ranges of them, as in `17,20-30`."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[range, ...]:
        """Parse `value`."""
        from scheduler.results.choice import parse_ranges

        if isinstance(value, tuple):
            return value
        try:
            return parse_ranges(str(value))
        except ValueError as error:
            self.fail(f"{error}; write numbers and ranges as in 17,20-30", param, ctx)


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
