"""Options that many commands share, and the types of their values."""

from typing import Any

import click

from scheduler.submission.durations import Duration as Duration  # noqa: PLC0414 - exported

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
full = click.option("--full", is_flag=True, help="Show long values whole.")
with_timeout = click.option(
    "--timeout",
    type=Duration(),
    metavar="15m",
    help="Stop waiting after this time span, with exit code 1; the jobs go on.",
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
