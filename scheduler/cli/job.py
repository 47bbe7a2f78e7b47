"""`genmill job`: what became of what was asked for."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from scheduler.cli.options import Duration, as_json
from scheduler.cli.record import open_record

STATES = ("queued", "running", "finalizing", "succeeded", "failed", "cancelled")
KINDS = ("train", "finetune", "generate")
COLUMNS = ("id", "kind", "model", "status", "progress", "created_at")


@click.group("job")
def job() -> None:
    """Follow, wait for, cancel and retry jobs. An id may be shortened to a clear prefix."""


@job.command("list")
@click.option("--status", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--kind", type=click.Choice(KINDS), help="Only jobs of this kind.")
@click.option("--model", metavar="M", help="Only jobs of this model.")
@click.option("--batch", metavar="B", help="Only jobs of this batch.")
@click.option("--schedule", metavar="NAME", help="Only jobs of this schedule.")
@click.option("--since", type=Duration(), metavar="1h", help="Only jobs created since then.")
@click.option("--before", metavar="ID", help="Only jobs older than this one: the next page.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    metavar="N",
    help="At most N (default 50).",
)
@as_json
def list_jobs(as_json: bool, **filters: Any) -> None:
    """List jobs, newest first.

    \b
    genmill job list --status failed --since 1d
    """
    from scheduler.output.documents import job_document
    from scheduler.output.render import print_json, print_table

    with open_record() as services, services.database.read() as session:
        found = _listing(session, **filters)
    documents = [job_document(each) for each in found]
    if as_json:
        print_json(documents)
        return
    from scheduler.cli.watching import describe

    for document, each in zip(documents, found, strict=True):
        document["progress"] = describe(each).removeprefix(each.status).strip(" ,")
    print_table(documents, COLUMNS)


def _listing(
    session: Any,
    *,
    batch: str | None,
    schedule: str | None,
    since: timedelta | None,
    before: str | None,
    **filters: Any,
) -> Sequence[Any]:
    from db import jobs, schedules
    from db.session import clock

    return jobs.listing(
        session,
        batch=jobs.get_batch(session, batch).id if batch else None,
        schedule=schedules.get(session, schedule).id if schedule else None,
        since=clock(session) - since if since else None,
        before=jobs.get(session, before).id if before else None,
        **filters,
    )


@job.command("show")
@click.argument("id")
@as_json
def show(id: str, as_json: bool) -> None:
    """Show a job: its spec, its shards, its history and its losses.

    \b
    genmill job show 0199c0de --json
    """
    from db import jobs
    from scheduler.cli.showing import job_pages, print_job

    with open_record() as services, services.database.read() as session:
        found = jobs.get(session, id)
        pages = job_pages(session, found)
    print_job(pages, as_json=as_json)


@job.command("watch")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@as_json
def watch(ids: tuple[str, ...], as_json: bool) -> None:
    """Watch jobs or batches until they end.

    Exit 1 where one does not succeed.

    \b
    genmill job watch 0199c0de
    """
    _wait_for(ids, show="json" if as_json else "text", err=False)


@job.command("wait")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@as_json
def wait(ids: tuple[str, ...], as_json: bool) -> None:
    """Wait for jobs or batches in silence.

    Exit 1 where one does not succeed.

    \b
    genmill job wait 0199c0de && genmill artifact download 0199c0de
    """
    _wait_for(ids, show="json" if as_json else "nothing", err=True)


def _wait_for(references: Sequence[str], *, show: str, err: bool) -> None:
    from scheduler.cli.watching import wait_shown
    from scheduler.results.follow import find_jobs

    with open_record() as services:
        with services.database.read() as session:
            job_ids = [found.id for found in find_jobs(session, references)]
        wait_shown(services, job_ids, show=show, err=err)


@job.command("logs")
@click.argument("id")
@as_json
def logs(id: str, as_json: bool) -> None:
    """Print what workers wrote about a job, oldest first.

    \b
    genmill job logs 0199c0de
    """
    from db import jobs
    from scheduler.output.render import clean, print_json, to_iso

    with open_record() as services, services.database.read() as session:
        for line in jobs.log_lines(session, jobs.get(session, id).id):
            if as_json:
                row = {"at": line.at, "level": line.level, "message": line.message}
                print_json(row, line=True)
            else:
                click.echo(f"{to_iso(line.at)} {line.level:7} {clean(line.message)}")


@job.command("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@as_json
def cancel(ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel jobs or batches.

    Samples committed until now stay, and a job that has ended is left alone.

    \b
    genmill job cancel 0199c0de 0199c0df
    """
    from functools import partial

    from db import jobs
    from scheduler.output.render import print_json
    from scheduler.results.follow import find_jobs

    with open_record() as services:
        with services.database.read() as session:
            found = [each.id for each in find_jobs(session, ids)]
        cancelled = {
            job_id: services.database.transact(partial(jobs.cancel, job_id=job_id))
            for job_id in found
        }
    if as_json:
        print_json([{"id": key, "cancelled": done} for key, done in cancelled.items()])
    for key, done in cancelled.items():
        if not as_json:
            click.echo(key) if done else click.echo(f"{key} has already ended", err=True)


@job.command("retry")
@click.argument("id")
@as_json
def retry(id: str, as_json: bool) -> None:
    """Enqueue what failed of a job once more.

    A new job linked to the old one, of the shards that did not succeed; prints its id.

    \b
    genmill job retry 0199c0de
    """
    from db import jobs
    from scheduler.output.documents import job_document
    from scheduler.output.render import print_json
    from scheduler.submission import enqueue

    with open_record() as services:
        with services.database.read() as session:
            old = jobs.get(session, id)
        new = enqueue.retry(services, old)
    print_json(job_document(new)) if as_json else click.echo(new.id)
