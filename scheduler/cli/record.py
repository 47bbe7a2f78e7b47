"""Opening the record for a command; a database with another schema is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from worker.services import Services
    from worker.settings import Settings


@contextmanager
def open_record() -> Iterator["Services"]:
    """Services whose database has this version's schema. Raises `SchemaMismatch`.

    A SQLite database that does not exist yet is created, so that any command may come first.
    """
    from db import schema
    from worker.services import open_services

    services = open_services()
    try:
        revision = schema.current(services.database)
        if revision is None and services.database.dialect == "sqlite":
            schema.upgrade(services.settings.database)
        else:
            schema.check_revision(services.database, revision)
        yield services
    finally:
        services.close()


def refuse_other_schema(settings: "Settings") -> None:
    """Raise `SchemaMismatch` unless the database has this version's schema.

    A database that cannot be reached is accepted: the process waits for it.
    """
    from db import schema
    from db.errors import Unreachable
    from worker.services import Services

    services = Services(settings)
    try:
        schema.check(services.database)
    except Unreachable as error:
        click.echo(f"waiting for the database: {error}", err=True)
    finally:
        services.close()
