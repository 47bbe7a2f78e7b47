"""The options that several commands of `genmill enqueue` have."""

from collections.abc import Callable
from typing import Any

import click

from scheduler.output.json_option import as_json
from scheduler.submission.durations import Duration
from scheduler.submission.stages import stage_options

SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a parameter; repeatable. See `genmill family show`.",
)
SEED = click.option(
    "--seed",
    type=int,
    metavar="N",
    help="Random seed: the same seed makes the same again. Default: a fresh one, which the job's "
    "spec records.",
)


def enqueue_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of how a job is enqueued."""
    for option in (
        as_json,
        click.option("--dry-run", is_flag=True, help="Show the spec and its cost; store nothing."),
        click.option(
            "--idempotency-key", metavar="K", help="Return the job that K created, if any."
        ),
        click.option(
            "--priority",
            type=int,
            default=0,
            show_default=True,
            metavar="N",
            help="Higher runs first.",
        ),
        click.option(
            "--timeout",
            type=Duration(),
            metavar="15m",
            help="With --wait: stop waiting after this time span, with exit code 1; the job goes "
            "on.",
        ),
        click.option("--wait", is_flag=True, help="Wait for the end; exit 1 unless it succeeds."),
    ):
        function = option(function)
    return function


def training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `train` and `finetune` share."""
    for option in (
        stage_options,
        SEED,
        click.option(
            "--max-seconds",
            type=float,
            metavar="S",
            help="Stop after S seconds. Default without --max-steps: the family's default_seconds.",
        ),
        click.option("--max-steps", type=int, metavar="N", help="Stop after N steps."),
        SET,
        click.option(
            "--dataset", required=True, metavar="D", help="Dataset: NAME or NAME:VERSION."
        ),
    ):
        function = option(function)
    return function
