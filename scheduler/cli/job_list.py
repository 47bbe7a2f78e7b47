"""`genmill job list`: jobs, newest first, by what they have in common."""

from datetime import timedelta
from typing import Any

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import Duration, listed
from scheduler.cli.record import open_record

STATES = DeclaredChoice("db.states:JobState")
KINDS = DeclaredChoice("worker.specs:KINDS")
COLUMNS = ("id", "kind", "model", "status", "progress", "created_at")


@click.command("list")
@click.option("--status", type=STATES, help="Only jobs in this state.")
@click.option("--kind", type=KINDS, help="Only jobs of this kind.")
@click.option("--model", metavar="M", help="Only jobs of this model.")
@click.option("--batch", metavar="B", help="Only jobs of this batch.")
@click.option("--schedule", metavar="NAME", help="Only jobs of this schedule.")
@click.option(
    "--owner",
    metavar="me|NAME",
    help="Only jobs that you, or this user or user@host, enqueued.",
)
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
@listed
def list_jobs(
    batch: str | None,
    schedule: str | None,
    owner: str | None,
    since: timedelta | None,
    before: str | None,
    as_json: bool,
    quiet: bool,
    **filters: Any,
) -> None:
    """List jobs, newest first.

    \b
    genmill job list --status failed --since 1d
    genmill job cancel $(genmill job list --status queued --quiet)
    genmill job list --json id,status,error
    """
    from db import batches, jobs, models, progress, schedules
    from db.session import clock
    from scheduler.cli.watching import describe_details
    from scheduler.output.documents import job_document
    from scheduler.output.render import print_list
    from scheduler.results.waiting import find_job
    from worker.identity import who

    with open_record() as services, services.database.read() as session:
        if filters["model"] is not None:
            models.check_known(session, filters["model"])
        found = jobs.listing(
            session,
            batch=batches.get(session, batch).id if batch is not None else None,
            schedule=schedules.get(session, schedule).id if schedule is not None else None,
            owner=who() if owner == "me" else owner,
            since=clock(session) - since if since else None,
            before=find_job(session, before).id if before is not None else None,
            with_spec=as_json,
            **filters,
        )
        done = {} if quiet else progress.of(session, found)
    rows = (
        {name: getattr(each, name) for name in COLUMNS if name != "progress"}
        | {"progress": describe_details(each, done[each.id])}
        for each in found
    )
    documents = [
        job_document(each, done[each.id]) if as_json else {"id": each.id} for each in found
    ]
    print_list(documents, COLUMNS, as_json=as_json, quiet=quiet, key="id", rows=rows)
