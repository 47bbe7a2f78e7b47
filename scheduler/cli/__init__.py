"""The command `genmill NOUN VERB`: data goes to stdout, messages to stderr.

One module per noun; a command parses, calls one function and prints what it returns. It must not
know SQL or Celery. The type of an error decides the exit code (`db.errors`); wrong usage has
Click's, which is that of `Refused`, and an interrupt 130. Importing this module imports Click and
nothing heavier.
"""

import contextlib
import errno
import gc
import os
import sys
from collections.abc import Sequence

import click

from db.errors import GenmillError
from scheduler.cli.lazy import Entry, LazyGroup
from scheduler.cli.private import private_files

INTERRUPTED = 130
GC_OBJECTS = 20_000  # new ones, between two collections


def _entry(target: str, short_help: str) -> Entry:
    return Entry(f"scheduler.cli.{target}", short_help)


SECTIONS = {
    "This machine": {
        "up": _entry("machine:up", "Start everything on this machine."),
        "down": _entry("machine:down", "Stop everything on this machine."),
        "status": _entry("machine:status", "Show what runs and what waits."),
        "doctor": _entry("machine:doctor", "Check every part; say how to fix what is wrong."),
        "backup": _entry("recovery:backup", "Copy everything into a folder while it runs."),
        "restore": _entry("recovery:restore", "Bring a backup back."),
        "store": _entry("store:store", "The object store: encrypt what is in it."),
        "cache": _entry("cache:cache", "This machine's copies of datasets and weights."),
        "demo": _entry("machine:demo", "Run an example on real data, from start to end."),
        "config": _entry("config:config", "Settings, where each comes from, what is wrong."),
        "help": _entry("help:help_", "Show the help of a command."),
    },
    "Jobs and results": {
        "enqueue": _entry("enqueue:enqueue", "Submit training and generation jobs."),
        "job": _entry("job:job", "Follow, wait for, cancel and retry jobs."),
        "artifact": _entry("artifact:artifact", "Download and verify what jobs made."),
        "schedule": _entry("schedule:schedule", "Repeat enqueue commands on a cron schedule."),
    },
    "Publishing": {
        "publish": _entry("publish:publish", "Publish samples and models, or take them down."),
        "publications": _entry("publications:publications", "What is published where."),
        "target": _entry("target:target", "Places to publish to."),
    },
    "Data and models": {
        "dataset": _entry("dataset:dataset", "Training data."),
        "model": _entry("model:model", "Trained models and their versions."),
        "policy": _entry("policy:policy", "Rules by which models are promoted."),
        "template": _entry("template:template", "Prompt templates."),
        "family": _entry("family:family", "Model families and their parameters."),
    },
    "Marks and provenance": {
        "key": _entry("key:key", "Keys that sign and mark samples."),
        "provenance": _entry("provenance:provenance", "Whether files were made here, unchanged."),
        "audit": _entry("audit_trail:audit", "Who promoted, published, withdrew, removed."),
    },
    "Cluster processes": {
        "worker": _entry("worker:worker", "Run a worker."),
        "scheduler": _entry("scheduler:scheduler", "Run a scheduler."),
        "db": _entry("db:db", "Create, upgrade, check and prune the database."),
    },
}

HELP = """Generate content in bulk: submit jobs, workers run the models, no job is lost.

\b
genmill up --detach
genmill dataset add mnist ./mnist
genmill enqueue train gan --dataset mnist --name digits --wait
job=$(genmill enqueue generate digits --count 1000 --wait)
genmill artifact download "$job"
"""

EPILOG = """Every command has --help with an example. Those that show something take --json, and
--json FIELDS for some fields alone; lists take -q for ids or names alone.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a service cannot be reached, 4 no such thing,
130 interrupted.

Shell completion: eval "$(_GENMILL_COMPLETE=bash_source genmill)", or zsh_source, fish_source."""


def _refuse_unknown_failpoints() -> None:
    """Also for commands that read no settings: whoever misspells one tests nothing."""
    from worker.environment import variables

    if text := variables().get("FAILPOINT"):
        from worker.failpoints import parse

        parse(text)


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from worker.code_version import code_version

        click.echo(f"genmill {code_version()}")
        context.exit()


cli = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version, with its commit, and exit.",
)(
    LazyGroup(
        "genmill",
        SECTIONS,
        callback=_refuse_unknown_failpoints,
        help=HELP,
        epilog=EPILOG,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
)


def main() -> None:
    """The entry point: run the command line and exit with its code."""
    gc.set_threshold(GC_OBJECTS)  # most of what is imported stays: looking through it takes 0.1 s
    code = run()
    gc.freeze()  # or the exit looks for garbage in all that was imported: a quarter of the time
    sys.exit(code)


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; an expected error is one line on stderr."""
    _prepare_streams()
    try:
        with private_files():
            code = cli.main(args=args, prog_name="genmill", standalone_mode=False)
        sys.stdout.flush()  # notice a closed pipe or a full disk here, not at exit
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except GenmillError as error:
        return _fail(error.message, error.remedy, error.exit_code)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        remedy = f"see `{context.command_path} --help`" if context else None
        # a file that cannot be used is wrong usage, too
        return _fail(error.format_message().rstrip("."), remedy, click.UsageError.exit_code)
    except Exception as error:
        return _fail_on_os_error(error) if isinstance(error, OSError) else _fail_unforeseen(error)
    return code if isinstance(code, int) else 0


def _prepare_streams() -> None:
    """Make stdout and stderr take any text, and discard it if they were closed from the start."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # open until the exit; importing pathlib for it would take longer
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")


def _fail_on_os_error(error: OSError) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        # the interpreter flushes at exit: let it not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return 1
    from db.path_errors import as_genmill

    known = as_genmill(error)
    return _fail(known.message, known.remedy, known.exit_code)


def _fail_unforeseen(error: Exception) -> int:
    """One line for an unexpected error; its traceback is shown for debugging only."""
    import traceback

    from worker.extras import missing_package
    from worker.settings import read_settings

    if isinstance(error, ModuleNotFoundError) and (known := missing_package(error)):
        return _fail(known.message, known.remedy, known.exit_code)
    with contextlib.suppress(GenmillError):
        if read_settings().log_level == "debug":
            click.echo("".join(traceback.format_exception(error)), err=True)
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    remedy = "set GENMILL_LOG_LEVEL=debug to see where, and report it"
    return _fail(f"unforeseen {what}", remedy, GenmillError.exit_code)


def _fail(message: str, remedy: str | None, code: int) -> int:
    from scheduler.output.render import clean

    text = f"{message}; {remedy}" if remedy else message
    click.echo(f"Error: {clean(text, keep_lines=True)}", err=True)
    return code
