"""`genmill up`, `down`, `status`, `doctor` and `demo`: the whole system on this machine."""

from pathlib import Path

import click

from scheduler.cli.ledger import outside_heads
from scheduler.cli.options import as_json, shown
from scheduler.cli.private import shared_as_usual
from scheduler.submission.path_arguments import PathArgument

PROCESSES = ("name", "pid", "restarts", "last_exit", "log")
WORKERS = ("id", "host", "pid", "device")
UNDER_WAY = ("id", "kind", "model", "progress")


@click.command("up")
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    metavar="N",
    help="Number of workers. Default: 1. With 0, workers are started by hand, and PyTorch is not "
    "needed.",
)
@click.option(
    "--detach", is_flag=True, help="Return once everything runs; `genmill down` stops it."
)
def up(workers: int | None, detach: bool) -> None:
    """Start the broker, database, workers and scheduler, except those configured elsewhere.

    A process that dies is restarted. Ctrl-C stops everything.

    \b
    genmill up --workers 2 --detach
    """
    from scheduler.machine import control
    from worker.settings import read_settings

    control.up(read_settings(), workers=workers, detach=detach)


@click.command("down")
def down() -> None:
    """Stop what `genmill up` started; running shards are saved and resumed at the next start.

    \b
    genmill down
    """
    from scheduler.machine import control
    from worker.settings import read_settings

    control.down(read_settings())


@click.command("status")
@shown
def status(as_json: bool) -> None:
    """Show the processes of this machine, the live workers and the jobs.

    Of the jobs, the number in each state, and how far those are that run.

    \b
    genmill status --json
    """
    from scheduler.cli.watching import describe_stages
    from scheduler.machine import control
    from scheduler.output.render import print_fields, print_json, print_table
    from worker.settings import read_settings

    found = control.status(read_settings())
    if as_json:
        print_json(found)
        return
    tables = {key: found.pop(key) for key in ("processes", "workers", "under_way")}
    for each in tables["under_way"]:
        each["progress"] = describe_stages(each["progress"])
    print_fields(found)
    columns = {"processes": PROCESSES, "workers": WORKERS, "under_way": UNDER_WAY}
    for name, rows in tables.items():
        if rows:
            print_table(rows, columns[name], heading=name.replace("_", " ").upper())


@click.command("doctor")
@click.option(
    "--check", "names", multiple=True, metavar="NAME", help="Run only this check; repeatable."
)
@click.option(
    "--audit",
    is_flag=True,
    help="Check every job, shard, artifact and message against the protocol's invariants instead; "
    "reads every object.",
)
@click.option(
    "--disk",
    is_flag=True,
    help="Show what takes the space instead, by job, model, dataset and cache; lists the store.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="With --audit, show what can be made again; with --yes, do it.",
)
@click.option("--dry-run", is_flag=True, help="With --repair, only show what would be done.")
@click.option("--yes", is_flag=True, help="With --repair, do it without asking.")
@outside_heads
@as_json
def doctor(
    names: tuple[str, ...],
    audit: bool,
    disk: bool,
    repair: bool,
    dry_run: bool,
    yes: bool,
    heads: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Check every part and say how to fix what is wrong; exit with 1 if anything is.

    \b
    genmill doctor
    genmill doctor --check database --check broker
    genmill doctor --audit --repair --dry-run
    genmill doctor --audit --head /safe/place/head.json
    genmill doctor --disk
    """
    from db.errors import GenmillError
    from scheduler.cli.db import refuse_other_tensors
    from scheduler.machine.doctor import examine, settings_to_examine
    from scheduler.output.render import print_json, print_table

    if heads and not audit:
        raise click.UsageError("--head is what --audit compares the ledger with; give both")
    _refuse_combinations(names, audit=audit, repair=repair, dry_run=dry_run, yes=yes)
    if disk:
        if names or audit:
            raise click.UsageError("--disk checks nothing: leave --check and --audit out")
        _show_disk(as_json=as_json)
        return
    if audit:
        from scheduler.cli.audit import run_audit

        run_audit(heads, repair=repair, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    checks = examine(settings_to_examine(), names, fits=refuse_other_tensors)
    if as_json:
        print_json(checks)
    else:
        print_table(checks, ("check", "ok", "found", "remedy"), prose=True)
    if wrong := [check["check"] for check in checks if not check["ok"]]:
        raise GenmillError(f"{len(wrong)} of {len(checks)} checks failed: {', '.join(wrong)}")


def _show_disk(*, as_json: bool) -> None:
    from scheduler.cli.record import open_record
    from scheduler.machine.disk import measure
    from scheduler.output.render import print_json, print_table, to_size

    with open_record() as services:
        found = measure(services)
    if as_json:
        print_json(found)
        return
    totals, largest, could_be_freed = (
        [row | {"size": to_size(row["size_bytes"])} for row in found[part]]
        for part in ("totals", "largest", "could_be_freed")
    )
    print_table(totals, ("what", "size", "objects", "where"), prose=True)
    if largest:
        print_table(largest, ("kind", "name", "size"), heading="LARGEST")
    if could_be_freed:
        print_table(could_be_freed, ("what", "size", "by"), heading="COULD BE FREED", prose=True)


def _refuse_combinations(
    names: tuple[str, ...], *, audit: bool, repair: bool, dry_run: bool, yes: bool
) -> None:
    if names and audit:
        raise click.UsageError("--check runs single checks, and --audit none of them")
    if repair and not audit:
        raise click.UsageError("--repair repairs what --audit finds; give both")
    if (dry_run or yes) and not repair:
        raise click.UsageError("--dry-run and --yes belong to --repair")
    if dry_run and yes:
        raise click.UsageError("--dry-run changes nothing, and --yes does it; give one of them")


@click.command("demo")
@click.option(
    "--write-data",
    "folder",
    type=PathArgument(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Only write its data into DIR: digits/, pictures in a folder for each digit, and "
    "documentation.txt.",
)
def demo(folder: Path | None) -> None:
    """Train, generate, schedule and download on real data, in a few minutes.

    The results are in genmill-demo/. It leaves nothing running, however it ends.

    \b
    genmill demo
    genmill demo --write-data .
    """
    if folder is not None:
        from scheduler.demo.data import write_data

        with shared_as_usual():
            for path in write_data(folder):
                click.echo(str(path))
        return
    from scheduler.demo.run import run_demo
    from worker.settings import read_settings

    run_demo(read_settings())
