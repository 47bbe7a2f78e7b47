"""The schema's version: bringing a database up to date, and refusing one that does not fit."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from db.driver_errors import place
from db.errors import SchemaMismatch
from db.session import Database

HEAD = "0001"  # revisions are numbered, so that older and newer can be told without Alembic
MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(url: str) -> None:
    """Bring the database at `url` to this version's schema; two at once wait for one another.

    Raises `SchemaMismatch` if it is newer than this version of Genmill knows.
    """
    from alembic import command  # noqa: PLC0415 - only this needs Alembic, and it loads slowly
    from alembic.config import Config  # noqa: PLC0415

    database = Database(url)
    try:
        with database.connect() as connection:
            _lock(connection)
            _refuse_newer(_revision(connection), database)
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            command.upgrade(config, "head")
    finally:
        database.dispose()


def check(database: Database) -> None:
    """Raise `SchemaMismatch`, with what to do, unless the schema is the one this version knows."""
    found = current(database)
    _refuse_newer(found, database)
    if found != HEAD:
        state = f"is at {found}, this version needs {HEAD}" if found else "has no tables yet"
        raise SchemaMismatch(f"the {place(database.url)} {state}; run `genmill db upgrade`")


def current(database: Database) -> str | None:
    """The revision of the database's schema; None if it has no tables."""
    with database.read() as session:
        return _revision(session.connection())


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _refuse_newer(found: str | None, database: Database) -> None:
    if found is not None and found > HEAD:
        raise SchemaMismatch(
            f"the {place(database.url)} is at {found}, newer than {HEAD}, the newest that this "
            "version knows; upgrade Genmill"
        )


def _lock(connection: Connection) -> None:
    # on SQLite the transaction began IMMEDIATE, which is the same lock
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(7236148112)"))
