"""What the database drivers' errors mean, in Genmill's own; places are named without a password."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy import exc as sql

from db.errors import GenmillError, Refused, SchemaMismatch, Unreachable

# serialization_failure, deadlock_detected, lock_not_available
RETRIED_STATES = frozenset({"40001", "40P01", "55P03"})

# disk_full, and what SQLite says of it: for its data, and for the index of its WAL
NO_SPACE = frozenset({"53100", "SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})

# insufficient_privilege, and what SQLite says of a file that it cannot use as a database
NOT_ALLOWED = frozenset({"42501", "SQLITE_NOTADB", "SQLITE_READONLY", "SQLITE_CORRUPT"})


class Busy(Unreachable):
    """The transaction lost to others and changed nothing: it may run again."""


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Raise what the driver's errors mean; an error whose meaning is not known passes."""
    try:
        yield
    except (sql.DBAPIError, sql.TimeoutError) as error:
        meant = _meaning(error, url)
        if meant is None:
            raise
        raise meant from error


def place(url: URL) -> str:
    """Where a database is, without user and password: `SQLite file x.db`."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite file {url.database}"
    where = f"{url.host or 'local socket'}:{url.port or 5432}"
    return f"PostgreSQL database {url.database!r} at {where}"


def check_settings(url: URL) -> str:
    """The remedy for a database that cannot be used."""
    home = "GENMILL_HOME and " if url.get_backend_name() == "sqlite" else ""
    return f"check {home}GENMILL_DATABASE_URL"


def _meaning(error: sql.DBAPIError | sql.TimeoutError, url: URL) -> GenmillError | None:
    cause = getattr(error, "orig", None) or error
    says = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or ""
    if code in RETRIED_STATES or code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(f"the {place(url)} is busy: {says}", remedy="try again")
    if code in NO_SPACE:
        return Unreachable(
            f"no space left for the {place(url)} ({says})", remedy="free some disk space"
        )
    if code == "42P01" or says.startswith("no such table"):
        return SchemaMismatch(
            f"the {place(url)} has no tables yet", remedy="run `genmill db upgrade`"
        )
    if isinstance(error, sql.DataError):
        return Refused(f"a value cannot be stored: {says}")
    lost = isinstance(error, sql.OperationalError | sql.TimeoutError)
    if lost or code in NOT_ALLOWED or getattr(error, "connection_invalidated", False):
        return Unreachable(f"cannot use the {place(url)}: {says}", remedy=check_settings(url))
    return None
