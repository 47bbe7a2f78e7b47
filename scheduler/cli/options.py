"""Options that many commands share, and the kinds of value they take."""

import os
import re
from datetime import timedelta
from typing import Any

import click

as_json = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = timedelta(days=36_500)  # far more is no date, or no number that fits


class Place(click.Path):
    """A path; not an empty one, which is what a shell makes of a variable that is not set."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:
        """The path, as `click.Path` was told to give it."""
        if not os.fspath(value):
            self.fail("the path is empty; write . for the working folder", param, ctx)
        return super().convert(value, param, ctx)


class Split(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between, as `90,5,5`; `worker.data.split` says which may be."""

    name = "split"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """As numbers."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not like 90,5,5", param, ctx)


class Duration(click.ParamType[timedelta]):
    """A time span as in 90s, 15m, 1h, 7d or 2w; a bare number is seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Parse `value`, or refuse it with examples."""
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d{1,9})([smhdw]?)", str(value).strip())
        if not match or int(match[1]) == 0:
            self.fail(f"{value!r} is not a time span; write it as 90s, 15m, 1h or 7d", param, ctx)
        seconds = int(match[1]) * _UNITS[match[2] or "s"]
        if seconds > _LONGEST.total_seconds():
            self.fail(f"{value!r} is longer than a hundred years, {_LONGEST.days}d", param, ctx)
        return timedelta(seconds=seconds)
