"""`genmill job`: listing, following and retrying jobs."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from scheduler.cli import removal
from scheduler.cli.job_changes import cancel, note, set_priority
from scheduler.cli.job_list import list_jobs
from scheduler.cli.job_logs import logs
from scheduler.cli.options import as_json, shown, with_timeout
from scheduler.cli.private import shared_as_usual
from scheduler.cli.receipt import Receipt
from scheduler.cli.record import open_record
from scheduler.submission.path_arguments import PathArgument

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from db.tables import Job
    from scheduler.output.documents import Document

MARK_COLUMNS = ("mark", "applied", "not_applied", "why")
SHARD_COLUMNS = ("index", "start", "stop", "status", "failures", "last_error")


with_chain = click.option(
    "--chain", is_flag=True, help="And for the jobs that are to run after them."
)


@click.group("job")
def job() -> None:
    """Follow, wait for, cancel and retry jobs. Any unique prefix of an id will do."""


job.add_command(list_jobs)


@job.command("show")
@click.argument("id")
@shown
def show(id: str, as_json: bool) -> None:
    """Show a job: its spec, chain, shards, history and latest metrics.

    \b
    genmill job show 0199c0de --json
    """
    from scheduler.cli.watching import describe_stages
    from scheduler.output.render import print_chain, print_fields, print_json, print_table
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
    chain, marks = document.pop("chain"), document.pop("marks")
    not_published = document.pop("not_published", ())
    progress = document["progress"]
    warnings = "; ".join(progress.get("warnings", ()))
    told = {"progress": describe_stages(progress), "warnings": warnings}
    print_fields(document | told)
    if chain:
        print_chain(chain, document["id"])
    if marks:
        print_table(marks, MARK_COLUMNS, heading="MARKS")
    if not_published:
        print_table(not_published, ("item", "reason"), heading="NOT PUBLISHED")
    print_table(shards, SHARD_COLUMNS, heading="SHARDS")
    print_table(transitions, ("at", "old", "new", "reason"), heading="HISTORY")


def _document(session: "Session", job: "Job") -> "Document":
    """A job with its chain, shards and transitions, and the last point of each of its curves."""
    from db import artifacts, jobs, progress
    from scheduler.output.documents import (
        chain_documents,
        job_document,
        mark_documents,
        not_published_documents,
        published_counts,
        shard_document,
    )

    published: Document = {}
    if job.kind == "publish":
        published["publications"] = published_counts(session, job)
        published["not_published"] = not_published_documents(session, job)
    return (
        job_document(job, progress.of(session, [job])[job.id])
        | published
        | {
            "chain": chain_documents(session, job.id),
            "artifacts_removed_at": artifacts.removed_at(session, job.id),
            "marks": mark_documents(artifacts.marks_of(session, job.id)),
            "shards": [shard_document(shard) for shard in jobs.shards_of(session, job.id)],
            "transitions": [
                {"at": step.at, "old": step.old, "new": step.new, "reason": step.reason}
                for step in jobs.transitions(session, job.id, with_shards=False)
            ],
            "metrics": jobs.last_points(session, job.id),
        }
    )


@job.command("watch")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@with_chain
@with_timeout
@as_json
def watch(ids: tuple[str, ...], chain: bool, timeout: timedelta | None, as_json: bool) -> None:
    """Show the progress of jobs or batches until they end.

    Exits with 1 if any of them does not succeed.

    \b
    genmill job watch 0199c0de
    """
    _wait_for(ids, timeout, chain=chain, show="json" if as_json else "text", err=False)


@job.command("wait")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@with_chain
@with_timeout
@as_json
def wait(ids: tuple[str, ...], chain: bool, timeout: timedelta | None, as_json: bool) -> None:
    """Wait for jobs or batches to end, without output.

    Exits with 1 if any of them does not succeed.

    \b
    genmill job wait 0199c0de && genmill artifact download 0199c0de
    """
    _wait_for(ids, timeout, chain=chain, show="json" if as_json else "nothing", err=True)


def _wait_for(
    references: Sequence[str],
    timeout: timedelta | None,
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
        wait_shown(services, job_ids, timeout=timeout, show=show, err=err)


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


for other in (logs, cancel, set_priority, note, removal.remove_jobs):
    job.add_command(other)
