"""`genmill publications`: what is published where."""

import click

from scheduler.cli.lazy import DeclaredChoice
from scheduler.cli.options import listed, with_limit
from scheduler.cli.record import open_record

STATES = DeclaredChoice("db.publications:STATES")
COLUMNS = ("item", "target", "state", "marks", "marks_verified", "published_at", "reason")


@click.group("publications")
def publications() -> None:
    """What is, or was, published where."""


@publications.command("list")
@click.option("--target", metavar="NAME", help="Only at this target.")
@click.option("--job", metavar="ID", help="Only samples of this job, or what it has published.")
@click.option("--state", type=STATES, help="Only those in this state.")
@with_limit("publications", default=1000, most=1_000_000)
@listed
def list_publications(
    target: str | None, job: str | None, state: str | None, limit: int, as_json: bool, quiet: bool
) -> None:
    """List publications: where each item is, whether it was verified there, why one was refused.

    \b
    genmill publications list --target shelf --state refused
    genmill publications list --job 0199c0de --json item,remote_id
    """
    from db import jobs, targets
    from db import publications as record
    from db.readable import read_each, refuse_unreadable
    from db.tables import Publication
    from scheduler.output.documents import publication_document
    from scheduler.output.render import print_list

    with open_record() as services, services.database.read() as session:
        chosen = record.Chosen(
            target_id=targets.get(session, target).id if target else None,
            job_id=jobs.get(session, job, kept=True).id if job else None,
            state=state,
        )
        found, bad = read_each(
            session,
            record.select_chosen(chosen, limit=limit + 1),
            lambda rows: [publication_document(*row) for row in rows],
            called=Publication.item,
        )
    print_list(found[:limit], COLUMNS, as_json=as_json, quiet=quiet, key="item")
    if len(found) + len(bad) > limit:
        click.echo(f"there are more: give --limit above {limit:,}", err=True)
    refuse_unreadable("publication", bad)
