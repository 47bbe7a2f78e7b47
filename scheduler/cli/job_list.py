"""`genmill job list`: jobs, newest first, by what they have in common."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import Duration, listed, with_limit
from scheduler.cli.record import open_record

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from db.tables import Job
    from scheduler.output.documents import Document

    Found = Sequence[tuple[Job]]

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
@with_limit("jobs")
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
    from db import batches, jobs, models, schedules
    from db.readable import read_each, refuse_unreadable
    from db.session import clock
    from scheduler.output.render import print_list
    from scheduler.results.waiting import find_job
    from worker.identity import who

    with open_record() as services, services.database.read() as session:
        if filters["model"] is not None:
            models.check_known(session, filters["model"])
        ids = jobs.newest(
            session,
            batch=batches.get(session, batch).id if batch is not None else None,
            schedule=schedules.get(session, schedule).id if schedule is not None else None,
            owner=who() if owner == "me" else owner,
            since=clock(session) - since if since else None,
            before=find_job(session, before).id if before is not None else None,
            **filters,
        )
        made = partial(_documents if as_json else _rows, session)
        statement = jobs.select_jobs(ids, with_spec=as_json)
        found, bad = read_each(session, statement, _ids if quiet else made)
    print_list(found, COLUMNS, as_json=as_json, quiet=quiet, key="id")
    refuse_unreadable("job", bad)


def _ids(rows: "Found") -> "list[Document]":
    return [{"id": job.id} for (job,) in rows]


def _documents(session: "Session", rows: "Found") -> "list[Document]":
    from scheduler.output.documents import job_documents

    return job_documents(session, [job for (job,) in rows])


def _rows(session: "Session", rows: "Found") -> "list[Document]":
    from db import progress
    from scheduler.cli.watching import describe_details

    done = progress.of(session, [job for (job,) in rows])
    return [
        {name: getattr(job, name) for name in COLUMNS if name != "progress"}
        | {"progress": describe_details(job, done[job.id])}
        for (job,) in rows
    ]
