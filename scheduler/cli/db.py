"""`genmill db`: the schema of the database, and deleting what is old."""

import click

from scheduler.cli.options import as_json


@click.group("db")
def db() -> None:
    """Create, upgrade, check and prune the database."""


@db.command("upgrade")
def upgrade() -> None:
    """Create the tables, or upgrade them to this version.

    \b
    GENMILL_DATABASE_URL=postgresql://user@host/genmill genmill db upgrade
    """
    from db import schema
    from worker.settings import read_settings

    schema.upgrade(read_settings().database)
    click.echo("the database is up to date", err=True)


@db.command("check")
@as_json
def check(as_json: bool) -> None:
    """Check that the schema is the one this version needs; exit with 1 if not.

    \b
    genmill db check && genmill scheduler
    """
    from db import schema
    from scheduler.output.render import print_json
    from worker.services import open_services

    services = open_services()
    try:
        schema.check(services.database)
        revision = schema.current(services.database)
    finally:
        services.close()
    if as_json:
        print_json({"revision": revision, "ok": True})
    else:
        click.echo(f"schema {revision}: up to date")


@db.command("prune")
@click.option("--dry-run", is_flag=True, help="Only show how many rows would be deleted.")
@as_json
def prune(dry_run: bool, as_json: bool) -> None:
    """Delete what finished jobs left behind and the settings GENMILL_KEEP_... no longer keep.

    A scheduler does the same, a little in each round. Jobs, shards and model versions stay.

    \b
    genmill db prune --dry-run
    GENMILL_KEEP_LOGS_DAYS=7 genmill db prune
    """
    from scheduler.cli.record import open_record
    from scheduler.dispatch import retention
    from scheduler.output.render import print_json, print_table

    with open_record() as services:
        keep = retention.keep_times(services)
        deleted = (retention.prunable if dry_run else retention.prune)(services, keep)
    rows = [
        {
            "data": what,
            "older_than_days": keep[what].total_seconds() / 86_400,
            "table": table,
            "rows": count,
        }
        for what, tables in deleted.items()
        for table, count in tables.items()
    ]
    if as_json:
        print_json({"dry_run": dry_run, "deleted": rows})
    else:
        print_table(rows, ("data", "older_than_days", "table", "rows"))
