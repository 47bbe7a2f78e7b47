"""The schema's version: upgrade a database, or refuse one whose schema does not match the code."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from db.driver_errors import NoTables, location
from db.errors import SchemaMismatch
from db.session import Database

HEAD = "0020"  # revisions are numbered, so they can be compared without loading Alembic
MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(url: str) -> None:
    """Upgrade the database at `url` to this version's schema; concurrent upgrades take turns.

    Raises `SchemaMismatch` if the database is newer than this version of Genmill.
    """
    from alembic import command  # noqa: PLC0415 - loads slowly, and nothing else needs it
    from alembic.config import Config  # noqa: PLC0415

    database = Database(url)
    try:
        with database.connect() as connection:
            if database.dialect == "postgresql":  # on SQLite, BEGIN IMMEDIATE has locked already
                connection.execute(text("SELECT pg_advisory_xact_lock(7236148112)"))
            if inspect(connection).has_table("alembic_version"):
                _refuse_newer(_revision(connection), database)
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            command.upgrade(config, "head")
    finally:
        database.dispose()


def check(database: Database) -> None:
    """Raise `SchemaMismatch` unless the database has this version's schema."""
    check_revision(database, current(database))


def check_revision(database: Database, found: str | None) -> None:
    """Raise `SchemaMismatch` unless `found`, as `current` returned it, is this version's schema."""
    _refuse_newer(found, database)
    if found != HEAD:
        state = f"is at {found}, but this version needs {HEAD}" if found else "has no tables yet"
        raise SchemaMismatch(
            f"the {location(database.url)} {state}", remedy="run `genmill db upgrade`"
        )


def current(database: Database) -> str | None:
    """The revision of the database's schema; None if it has no tables."""
    # one plain statement: every command begins with it, and the inspector asks several
    try:
        with database.read() as session:
            return _revision(session.connection())
    except NoTables:
        return None


def _revision(connection: Connection) -> str | None:
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _refuse_newer(found: str | None, database: Database) -> None:
    if found is not None and found > HEAD:
        raise SchemaMismatch(
            f"the schema of the {location(database.url)} is at {found}, but this version of "
            f"Genmill knows none newer than {HEAD}",
            remedy="upgrade Genmill",
        )
