"""Options that many commands share, and the types of their values."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from scheduler.output.json_option import as_json
from scheduler.output.view import current_view
from scheduler.submission.durations import Duration

__all__ = [
    "Duration",
    "Numbers",
    "Split",
    "as_json",
    "listed",
    "shown",
    "with_limit",
    "with_timeout",
]

F = TypeVar("F", bound=Callable[..., Any])

with_timeout = click.option(
    "--timeout",
    type=Duration(),
    metavar="15m",
    help="Stop waiting after this time span, with exit code 1; the jobs go on.",
)


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


def with_limit(noun: str, default: int = 50, most: int = 10_000) -> Callable[[F], F]:
    """The option `--limit` of a list of things, `noun` in the plural."""
    return click.option(
        "--limit",
        type=click.IntRange(1, most),
        default=default,
        show_default=True,
        metavar="N",
        help=f"At most N {noun}.",
    )


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
