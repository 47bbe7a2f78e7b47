"""`genmill db`: the schema of the database."""

import click

from scheduler.cli.options import as_json


@click.group("db")
def db() -> None:
    """Create, upgrade and check the database."""


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
