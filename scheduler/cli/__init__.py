"""The command `genmill NOUN VERB`: data on stdout, talk on stderr, exit codes to rely on.

0 done; 1 what was asked for failed; 2 wrong usage or a refused spec; 3 a service cannot be reached;
4 no such thing; 130 interrupted. Importing this module imports Click and nothing heavier.
"""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from db.errors import GenmillError
from scheduler.cli.lazy import Entry, LazyGroup

INTERRUPTED = 130


def _entry(target: str, short_help: str) -> Entry:
    return Entry(f"scheduler.cli.{target}", short_help)


SECTIONS = {
    "This machine": {
        "up": _entry("machine:up", "Start everything on this machine."),
        "down": _entry("machine:down", "Stop what `up --detach` started."),
        "status": _entry("machine:status", "What runs, and what waits."),
        "doctor": _entry("machine:doctor", "What is wrong, and what to do about it."),
        "demo": _entry("machine:demo", "The main job on real data, start to end."),
    },
    "Work": {
        "enqueue": _entry("enqueue:enqueue", "Ask for training or generation."),
        "job": _entry("job:job", "Follow, wait for, cancel and retry jobs."),
        "artifact": _entry("artifact:artifact", "Download and check what jobs made."),
        "schedule": _entry("schedule:schedule", "Enqueue again by the clock."),
    },
    "Things": {
        "dataset": _entry("dataset:dataset", "What models learn from."),
        "model": _entry("model:model", "Trained models and their versions."),
        "template": _entry("template:template", "Prompts with fields to fill in."),
        "family": _entry("family:family", "The kinds of model, with every parameter."),
    },
    "A cluster's processes": {
        "worker": _entry("worker:worker", "Run one worker."),
        "scheduler": _entry("scheduler:scheduler", "Run one scheduler."),
        "db": _entry("db:db", "Create, upgrade and check the database."),
    },
}

HELP = """Batch content generation: ask, workers train and generate, nothing is lost.

\b
genmill up --detach
genmill dataset add mnist ./mnist
genmill enqueue train gan --dataset mnist --name digits --max-seconds 180 --wait
genmill artifact download "$(genmill enqueue generate digits --count 1000 --wait)"
"""

EPILOG = """Every command has --help with an example; those that show something take --json.
Shell completion: eval "$(_GENMILL_COMPLETE=bash_source genmill)", or zsh_source, fish_source."""


def _print_version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"genmill {version('genmill')}")
        ctx.exit()


cli = LazyGroup(
    "genmill",
    SECTIONS,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        )
    ],
)


def main() -> None:
    """The entry point: run the command line and exit with its code."""
    sys.exit(run())


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; expected trouble is one line on stderr."""
    _prepare_streams()
    try:
        code = cli.main(args=args, prog_name="genmill", standalone_mode=False)
        sys.stdout.flush()  # a closed pipe or a full disk is noticed here, not at the exit
    except (click.ClickException, click.Abort, GenmillError, KeyboardInterrupt, OSError) as error:
        return _explain(error)
    return code if isinstance(code, int) else 0


def _prepare_streams() -> None:
    """Let both take any text; one that was closed before the start swallows it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for as long as we run
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")


def _explain(error: BaseException) -> int:
    """Say in a line what went wrong; return the exit code that belongs to it."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            code = error.exit_code
        case click.UsageError():
            where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
            code = _complain(error.format_message() + where, error.exit_code)
        case click.ClickException():  # of a file that was named: wrong usage too
            code = _complain(error.format_message(), click.UsageError.exit_code)
        case GenmillError():
            code = _complain(str(error), error.exit_code)
        case OSError():
            code = _explain_os_error(error)
        case _:
            code = INTERRUPTED
    return code


def _explain_os_error(error: OSError) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        # What is buffered can never be written: without this the exit would try, and fail, again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return 1
    path = f": {error.filename}" if error.filename else ""
    remedy = " (free some space and run the command again)" if error.errno == errno.ENOSPC else ""
    return _complain(f"{error.strerror or error}{path}{remedy}", 1)


def _complain(message: str, code: int) -> int:
    from scheduler.output.render import clean

    click.echo(f"Error: {clean(message, keep_lines=True)}", err=True)
    return code
