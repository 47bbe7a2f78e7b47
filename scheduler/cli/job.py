"""`genmill job`: listing, following, cancelling and retrying jobs."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from scheduler.cli.job_logs import logs
from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import Duration, as_json
from scheduler.cli.private import shared_as_usual
from scheduler.cli.receipt import Receipt
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from db.tables import Job
    from scheduler.output.documents import Document

STATES = DeclaredChoice("db.states:JobState")
KINDS = DeclaredChoice("worker.specs:KINDS")
COLUMNS = ("id", "kind", "model", "status", "progress", "created_at")
SHARD_COLUMNS = ("index", "start", "stop", "status", "failures", "last_error")


with_chain = click.option(
    "--chain", is_flag=True, help="And for the jobs that are to run after them."
)


@click.group("job")
def job() -> None:
    """Follow, wait for, cancel and retry jobs. Any unique prefix of an id will do."""


job.add_command(logs)


@job.command("list")
@click.option("--status", type=STATES, help="Only jobs in this state.")
@click.option("--kind", type=KINDS, help="Only jobs of this kind.")
@click.option("--model", metavar="M", help="Only jobs of this model.")
@click.option("--batch", metavar="B", help="Only jobs of this batch.")
@click.option("--schedule", metavar="NAME", help="Only jobs of this schedule.")
@click.option(
    "--since", type=Duration(), metavar="1h", help="Only jobs created within this time span."
)
@click.option("--before", metavar="ID", help="Only jobs older than this one: the next page.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    metavar="N",
    help="At most N jobs (default 50).",
)
@as_json
def list_jobs(
    batch: str | None,
    schedule: str | None,
    since: timedelta | None,
    before: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """List jobs, newest first.

    \b
    genmill job list --status failed --since 1d
    """
    from db import batches, jobs, progress, schedules
    from db.session import clock
    from scheduler.cli.watching import describe_details
    from scheduler.output.documents import job_document
    from scheduler.output.render import print_json, print_table
    from scheduler.results.waiting import find_job

    with open_record() as services, services.database.read() as session:
        found = jobs.listing(
            session,
            batch=batches.get(session, batch).id if batch else None,
            schedule=schedules.get(session, schedule).id if schedule else None,
            since=clock(session) - since if since else None,
            before=find_job(session, before).id if before else None,
            with_spec=as_json,
            **filters,
        )
        done = progress.of(session, found)
    if as_json:
        print_json([job_document(each, done[each.id]) for each in found])
    else:
        rows = [
            {name: getattr(each, name) for name in COLUMNS if name != "progress"}
            | {"progress": describe_details(each, done[each.id])}
            for each in found
        ]
        print_table(rows, COLUMNS)


@job.command("show")
@click.argument("id")
@as_json
def show(id: str, as_json: bool) -> None:
    """Show a job: its spec, chain, shards, history and latest metrics.

    \b
    genmill job show 0199c0de --json
    """
    from scheduler.cli.watching import describe_stages
    from scheduler.output.render import draw_chain, print_fields, print_json, print_table
    from scheduler.results.waiting import find_job
    from worker.services.prompts import load_data

    with open_record() as services:
        with services.database.read() as session:
            document = _document(session, find_job(session, id))
        document["spec"] = load_data(services.store, document["spec"])
    if as_json:
        print_json(document)
        return
    shards, transitions = document.pop("shards"), document.pop("transitions")
    chain = document.pop("chain")
    progress = document["progress"]
    told = {"progress": describe_stages(progress), "warnings": progress.get("warnings")}
    print_fields(document | told)
    if chain:
        click.echo("\nCHAIN\n" + "\n".join(draw_chain(chain, document["id"])))
    print_table(shards, SHARD_COLUMNS, heading="SHARDS")
    print_table(transitions, ("at", "old", "new", "reason"), heading="HISTORY")


def _document(session: "Session", job: "Job") -> "Document":
    """A job with its chain, shards and transitions, and the last point of each of its curves."""
    from db import artifacts, jobs, progress
    from scheduler.output.documents import chain_documents, job_document, shard_document

    return job_document(job, progress.of(session, [job])[job.id]) | {
        "chain": chain_documents(session, job.id),
        "artifacts_removed_at": artifacts.removed_at(session, job.id),
        "shards": [shard_document(shard) for shard in jobs.shards_of(session, job.id)],
        "transitions": [
            {"at": step.at, "old": step.old, "new": step.new, "reason": step.reason}
            for step in jobs.transitions(session, job.id, with_shards=False)
        ],
        "metrics": jobs.last_points(session, job.id),
    }


@job.command("watch")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@with_chain
@as_json
def watch(ids: tuple[str, ...], chain: bool, as_json: bool) -> None:
    """Show the progress of jobs or batches until they end.

    Exits with 1 if any of them does not succeed.

    \b
    genmill job watch 0199c0de
    """
    _wait_for(ids, chain=chain, show="json" if as_json else "text", err=False)


@job.command("wait")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@with_chain
@as_json
def wait(ids: tuple[str, ...], chain: bool, as_json: bool) -> None:
    """Wait for jobs or batches to end, without output.

    Exits with 1 if any of them does not succeed.

    \b
    genmill job wait 0199c0de && genmill artifact download 0199c0de
    """
    _wait_for(ids, chain=chain, show="json" if as_json else "nothing", err=True)


def _wait_for(
    references: Sequence[str],
    *,
    chain: bool,
    show: Literal["json", "text", "nothing"],
    err: bool,
) -> None:
    from scheduler.cli.watching import wait_shown
    from scheduler.results.waiting import find_jobs

    with open_record() as services:
        with services.database.read() as session:
            found = find_jobs(session, references, with_chains=chain)
        job_ids = [job.id for job in found]
        wait_shown(services, job_ids, show=show, err=err)


@job.command("export")
@click.argument("id")
@click.argument("folder", type=PathArgument(file_okay=False, path_type=Path), metavar="DIR")
@click.option(
    "--as",
    "form",
    type=click.Choice(["tensorboard"]),
    default="tensorboard",
    help="Format: a TensorBoard event file (the default).",
)
@as_json
def export(id: str, folder: Path, form: str, as_json: bool) -> None:
    """Write a job's curves and evaluations into a folder; print the file.

    \b
    genmill job export 0199c0de runs/nightly && tensorboard --logdir runs
    """
    from db import evaluations, jobs
    from scheduler.output.render import print_json
    from scheduler.results.event_files import write_events

    with open_record() as services:
        with services.database.read() as session:
            found = jobs.get(session, id)
            points = jobs.points(session, found.id)
            measured = evaluations.of_job(session, found.id)
        with shared_as_usual():
            path = write_events(found, points, measured, folder)
    print_json({"file": str(path), "format": form}) if as_json else click.echo(str(path))


@job.command("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@as_json
def cancel(ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel jobs or batches, and the jobs that wait for them.

    Committed samples are kept; a job that has ended stays as it is. Prints the ids of what was
    cancelled.

    \b
    genmill job cancel 0199c0de 0199c0df
    """
    from functools import partial

    from db import jobs
    from db.states import JobState
    from scheduler.output.render import print_json
    from scheduler.results.waiting import find_groups

    with open_record() as services:
        with services.database.read() as session:
            groups = find_groups(session, ids)
        found = {job.id: job for group in groups.values() for job in group}.values()
        cancelled = {
            each.id: services.database.transact(partial(jobs.cancel, job_id=each.id))
            for each in found
        }
        with services.database.read() as session:  # some went with the one that they waited for
            went = {each.id for each in found if each.status == JobState.WAITING}
            cancelled |= {
                job_id: jobs.get(session, job_id).status == JobState.CANCELLED for job_id in went
            }
    if as_json:
        print_json([{"id": key, "cancelled": done} for key, done in cancelled.items()])
        return
    for key, group in groups.items():
        _say_cancelled(key, [cancelled[each.id] for each in group])


def _say_cancelled(reference: str, cancelled: Sequence[bool]) -> None:
    """Print a job's or a batch's id if any job was cancelled, and how many had ended before."""
    if any(cancelled):
        click.echo(reference)
    ended = cancelled.count(False)
    if ended and len(cancelled) == 1:
        click.echo(f"{reference} has already ended", err=True)
    elif ended:
        click.echo(f"{ended} of {len(cancelled)} jobs of {reference} have already ended", err=True)


@job.command("retry")
@click.argument("id")
@as_json
def retry(id: str, as_json: bool) -> None:
    """Retry the shards of a job that failed or were cancelled.

    They become a new job, linked to the old one; prints its id. The jobs that were to run after it
    are enqueued again too.

    \b
    genmill job retry 0199c0de
    """
    from scheduler.output.documents import job_documents
    from scheduler.output.render import print_json
    from scheduler.results.waiting import find_job
    from scheduler.submission import enqueue

    with open_record() as services, Receipt(as_json=as_json) as receipt:
        with services.database.read() as session:
            old = find_job(session, id)
        new = enqueue.retry(services, old, on_stored=receipt.stored)
        if as_json:
            with services.database.read() as session:
                [document] = job_documents(session, [new])
            print_json(document)
