"""Options that many commands share, and the types of their values."""

import re
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar

import click

from scheduler.output.json_option import as_json
from scheduler.output.view import current_view

__all__ = ["Duration", "Split", "as_json", "listed", "shown"]

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = timedelta(days=36_500)  # longer ones lead to dates that cannot be represented


def _set_full(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        current_view().full = True


_full = click.option(
    "--full",
    is_flag=True,
    expose_value=False,
    callback=_set_full,
    help="Show long values, ids and times in full on a terminal.",
)
_quiet = click.option("-q", "--quiet", is_flag=True, help="Print the names or ids alone.")


def shown(command: F) -> F:
    """Options of a command that shows one thing, `--json` and `--full`; long output is paged."""

    @wraps(command)
    def page(*arguments: Any, **options: Any) -> Any:
        from scheduler.output.paging import paged

        with paged():
            return command(*arguments, **options)

    return as_json(_full(page))  # type: ignore[return-value] # it takes and returns the same


def listed(command: F) -> F:
    """Options of a command that lists things: those of `shown`, and `--quiet`."""

    @wraps(command)
    def check(*arguments: Any, as_json: bool, quiet: bool, **options: Any) -> Any:
        if as_json and quiet:
            raise click.UsageError("--quiet prints names or ids alone: give it, or --json")
        return command(*arguments, as_json=as_json, quiet=quiet, **options)

    return shown(_quiet(check))  # type: ignore[return-value] # it takes and returns the same


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
