"""Opening the record for a command."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.services import Services


@contextmanager
def open_record() -> Iterator["Services"]:
    """Services whose database has the schema that this version knows. Raises `SchemaMismatch`.

    A SQLite database that is not there yet is made, so that nothing needs doing first.
    """
    from db import schema
    from worker.services import open_services

    services = open_services()
    try:
        if services.database.dialect == "sqlite" and schema.current(services.database) is None:
            schema.upgrade(services.settings.database)
        schema.check(services.database)
        yield services
    finally:
        services.close()
