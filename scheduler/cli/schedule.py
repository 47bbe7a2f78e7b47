"""`genmill schedule`: enqueue commands repeated on a cron schedule."""

from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import Duration, as_json, listed, shown
from scheduler.cli.receipt import Receipt
from scheduler.cli.record import open_record

if TYPE_CHECKING:
    from db.tables import Schedule
    from scheduler.output.documents import Document

MISSED = DeclaredChoice("scheduler.schedules.manage:MISSED")
OVERLAP = DeclaredChoice("scheduler.schedules.manage:OVERLAP")
RUN_COLUMNS = ("due", "outcome", "job", "jobs", "versions", "numbers", "verdict", "reason")
# by which the gate decides unless its policy names another
KEY_NUMBERS = (
    *("kid", "fid", "label_agreement", "loss", "bits_per_sample", "class_agreement"),
    *("memorisation", "made_to_real_accuracy"),
)
COLUMNS = ("name", "cron", "timezone", "paused", "next_due", "command")


_force = click.option(
    "--force", is_flag=True, help="Although it would train on withdrawn data; it is recorded."
)


@click.group("schedule")
def schedule() -> None:
    """Repeat enqueue commands on a cron schedule. Changes apply at once, without a restart."""


@schedule.command("add")
@click.argument("name")
@click.option(
    "--cron",
    required=True,
    metavar='"0 3 * * *"',
    help="Cron expression: minute hour day month weekday.",
)
@click.option(
    "--timezone",
    default="UTC",
    show_default=True,
    metavar="TZ",
    help="Time zone, as in Europe/Berlin.",
)
@click.option(
    "--missed",
    type=MISSED,
    default="skip",
    show_default=True,
    help="Due times missed while no scheduler ran: skip them, or run once for all.",
)
@click.option(
    "--overlap",
    type=OVERLAP,
    default="skip",
    show_default=True,
    help="While the previous job still runs: skip the run, or queue another.",
)
@click.option(
    "--seed",
    default="fresh",
    show_default=True,
    metavar="fresh|fixed|N",
    help="Seed of the jobs: a fresh one at each run, one drawn now for all runs, or N.",
)
@click.option(
    "--only-if-new-data",
    is_flag=True,
    help="Skip a run unless the dataset has another version than the last run used.",
)
@click.option(
    "--new-data-wait",
    type=Duration(),
    metavar="10m",
    help="And unless that version has been the newest for so long: one run for a burst of them.",
)
@click.argument("words", nargs=-1, required=True, metavar="-- enqueue ...")
@as_json
def add(name: str, words: tuple[str, ...], as_json: bool, **rules: Any) -> None:
    """Repeat an enqueue command on a cron schedule. The command is checked now.

    Files named in the command are read at each run, on the scheduler's machine.

    \b
    genmill schedule add nightly --cron "0 3 * * *" --timezone Europe/Berlin -- \\
        enqueue finetune digits --dataset new --max-seconds 600
    genmill schedule add hourly --cron "0 * * * *" --new-data-wait 10m -- \\
        enqueue finetune digits --dataset new --evaluate --promote
    """
    from scheduler.schedules.manage import add_schedule

    with open_record() as services:
        added = add_schedule(services, name, command=words, **rules)
    _print(added, as_json=as_json)


def _print(found: "Schedule", *, as_json: bool) -> None:
    from scheduler.output.documents import schedule_document
    from scheduler.output.render import print_json, to_iso

    if as_json:
        print_json(schedule_document(found))
    else:
        click.echo(
            f"{found.name}  {'paused' if found.paused else f'next {to_iso(found.next_due)}'}"
        )


@schedule.command("list")
@listed
def list_schedules(as_json: bool, quiet: bool) -> None:
    """List all schedules, and when each is due next. A paused one is not.

    \b
    genmill schedule list
    """
    import shlex

    from db import schedules
    from db.readable import read_each, refuse_unreadable
    from db.tables import Schedule
    from scheduler.output.documents import schedule_document
    from scheduler.output.render import print_list, to_age
    from scheduler.schedules.manage import require_intact

    with open_record() as services, services.database.read() as session:
        found, bad = read_each(
            session,
            schedules.select_all(),
            lambda rows: [schedule_document(require_intact(each)) for (each,) in rows],
            called=Schedule.name,
        )
    told = (
        each
        | {"next_due": each["next_due"] and to_age(each["next_due"])}
        | {"command": shlex.join(each["command"])}
        for each in found
    )
    print_list(found, COLUMNS, as_json=as_json, quiet=quiet, rows=told)
    refuse_unreadable("schedule", bad)


@schedule.command("show")
@click.argument("name")
@shown
def show(name: str, as_json: bool) -> None:
    """Show a schedule and its latest runs: jobs, versions, key numbers and the gate's verdict.

    \b
    genmill schedule show nightly
    """
    import shlex

    from db import schedules
    from scheduler.output.documents import run_document, schedule_document
    from scheduler.output.render import print_fields, print_json, print_table, to_age, to_iso
    from scheduler.schedules.manage import require_intact

    with open_record() as services, services.database.read() as session:
        found = require_intact(schedules.get(session, name))
        runs = [run_document(session, run) for run in schedules.runs(session, found.id)]
    document = schedule_document(found)
    if as_json:
        print_json(document | {"runs": runs})
        return
    due = document["next_due"]
    told = {"next_due": due and f"{to_iso(due)}, {to_age(due)}"}
    print_fields(document | told | {"command": shlex.join(document["command"])})
    print_table([run | _told(run) for run in runs], RUN_COLUMNS, heading="RUNS", prose=True)


def _told(run: "Document") -> "Document":
    """What a run's jobs came to, in words."""
    retried = {job["retry_of"] for job in run["jobs"]}
    stages = [f"{job['kind']} {job['status']}" for job in run["jobs"] if job["id"] not in retried]
    numbers, verdict = run["numbers"], run["verdict"]
    errors = [job["error"] for job in run["jobs"] if job["error"] and not verdict]
    return {
        "jobs": stages,
        "numbers": {name: numbers[name]["value"] for name in KEY_NUMBERS if name in numbers},
        "verdict": verdict and f"{verdict['outcome']}: {'; '.join(verdict['reasons'])}",
        "reason": "; ".join(filter(None, [run["reason"], *errors])),
    }


@schedule.command("pause")
@click.argument("name")
@as_json
def pause(name: str, as_json: bool) -> None:
    """Pause a schedule until it is resumed.

    \b
    genmill schedule pause nightly
    """
    from db import schedules

    with open_record() as services:
        paused = services.database.transact(lambda session: schedules.pause(session, name))
    _print(paused, as_json=as_json)


@schedule.command("resume")
@click.argument("name")
@_force
@as_json
def resume(name: str, force: bool, as_json: bool) -> None:
    """Resume a paused schedule. Runs missed during the pause are skipped.

    One that would train on withdrawn data, or on a model that learnt from them, stays paused.

    \b
    genmill schedule resume nightly
    """
    from scheduler.removal.schedules import refuse_withdrawn
    from scheduler.schedules.manage import resume_schedule

    with open_record() as services:
        with services.database.read() as session:
            withdrawn = refuse_withdrawn(session, name, force=force)
        resumed = resume_schedule(services, name, withdrawn=withdrawn)
    _print(resumed, as_json=as_json)


@schedule.command("trigger")
@click.argument("name")
@_force
@as_json
def trigger(name: str, force: bool, as_json: bool) -> None:
    """Run a schedule's command once, now, even while it is paused.

    Prints the id of the job or the batch. A paused one that would train on withdrawn data, or on a
    model that learnt from them, is refused.

    \b
    genmill job wait "$(genmill schedule trigger nightly)"
    """
    from scheduler.output.documents import job_documents
    from scheduler.output.render import print_json
    from scheduler.removal.schedules import refuse_withdrawn
    from scheduler.schedules.manage import trigger_schedule

    with open_record() as services, Receipt(as_json=as_json) as receipt:
        with services.database.read() as session:
            withdrawn = refuse_withdrawn(session, name, force=force)
        made = trigger_schedule(services, name, withdrawn=withdrawn, on_stored=receipt.stored)
        if as_json:
            with services.database.read() as session:
                documents = job_documents(session, made)
            print_json(documents)


@schedule.command("remove")
@click.argument("name")
@as_json
def remove(name: str, as_json: bool) -> None:
    """Remove a schedule; its jobs stay.

    \b
    genmill schedule remove nightly
    """
    from db import schedules
    from scheduler.output.render import print_json

    with open_record() as services:
        services.database.transact(lambda session: schedules.remove(session, name))
    print_json({"removed": name}) if as_json else click.echo(name)
