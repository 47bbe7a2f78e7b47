"""Translating the database drivers' errors into Genmill's. No message holds a password."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from sqlalchemy import URL
from sqlalchemy import exc as sql

from db.database_url import hosts_of
from db.errors import BadRecord, GenmillError, Refused, SchemaMismatch, Unreachable
from db.path_errors import explain, is_missing, shown

# serialization_failure, deadlock_detected, lock_not_available
RETRIED_STATES = frozenset({"40001", "40P01", "55P03"})

_FULL = ("no space left for the", "free some disk space")
_POOLED = ("a pooler stands before the", "add ?prepare_threshold=off to GENMILL_DATABASE_URL")
_STARTUP = (
    "a pooler stands before the",
    "leave ?options= out of GENMILL_DATABASE_URL (`ALTER ROLE ... SET` does the same), or take the "
    "address without the pooler",
)
_SLOW = ("no answer in time from the", "see `genmill doctor --check database`")

# what is wrong and the remedy, by the code
UNREACHABLE = {
    "53100": _FULL,  # disk_full
    "SQLITE_FULL": _FULL,
    "SQLITE_IOERR_SHMSIZE": _FULL,  # for the index of its WAL
    "26000": _POOLED,  # invalid_sql_statement_name: prepared on another server process
    "42P05": _POOLED,  # duplicate_prepared_statement
    "08P01": _STARTUP,
    "57014": _SLOW,  # query_canceled, by `statement_timeout`
}

# insufficient_privilege, and SQLite's codes for a file that it cannot use as a database
NOT_ALLOWED = frozenset({"42501", "SQLITE_NOTADB", "SQLITE_READONLY", "SQLITE_CORRUPT"})


class Busy(Unreachable):
    """The transaction lost to another one and changed nothing; it can be retried."""


class NoTables(SchemaMismatch):
    """The database has no tables yet."""


@contextmanager
def translate_errors(url: URL) -> Iterator[None]:
    """Raise Genmill's errors in place of the driver's; an unknown one is re-raised as it is."""
    try:
        yield
    except sql.NoResultFound:
        raise BadRecord(
            "the record lacks a row that another one refers to",
            remedy="it was damaged or edited: see `genmill doctor`, or restore a backup",
        ) from None
    except OverflowError as error:  # the driver's
        raise Refused(f"a value cannot be stored: {error}") from None
    except (sql.DBAPIError, sql.TimeoutError) as error:
        translation = _translate(error, url)
        if translation is None:
            raise
        raise translation from error


def location(url: URL) -> str:
    """Where a database is, without user and password: `SQLite file x.db`."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite file {shown(str(url.database))}"
    return f"PostgreSQL database {url.database!r} at {hosts_of(url)}"


def settings_remedy(url: URL) -> str:
    """The remedy for a database that cannot be used."""
    home = "GENMILL_HOME and " if url.get_backend_name() == "sqlite" else ""
    return f"check {home}GENMILL_DATABASE_URL"


def _translate(error: sql.DBAPIError | sql.TimeoutError, url: URL) -> GenmillError | None:
    cause = getattr(error, "orig", None) or error
    text = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or ""
    if code in RETRIED_STATES or code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(f"the {location(url)} is busy: {text}", remedy="try again")
    if "unsupported startup parameter" in text:  # refused while connecting: there is no code
        code = "08P01"
    if code in UNREACHABLE:
        problem, remedy = UNREACHABLE[code]
        return Unreachable(f"{problem} {location(url)} ({text})", remedy=remedy)
    if code == "42P01" or text.startswith("no such table"):
        return NoTables(f"the {location(url)} has no tables yet", remedy="run `genmill db upgrade`")
    if isinstance(error, sql.DataError):
        return Refused(f"a value cannot be stored: {text}")
    lost = isinstance(error, sql.OperationalError | sql.TimeoutError)
    if lost or code in NOT_ALLOWED or getattr(error, "connection_invalidated", False):
        why = _file_error(url) if code.startswith("SQLITE_") else ""
        return Unreachable(
            f"cannot use the {location(url)}: {text}{why}", remedy=settings_remedy(url)
        )
    return None


def _file_error(url: URL) -> str:
    """What keeps an SQLite file from being opened, if the system knows: SQLite does not tell."""
    path = Path(str(url.database))
    try:
        if not is_missing(path):
            with path.open("r+b"):
                pass
        with TemporaryFile(dir=path.parent):  # its journal lies beside it
            return ""
    except OSError as error:
        at_fault = path if error.filename == str(path) else path.parent
        folder = "" if at_fault == path else "its folder: "
        return f" ({folder}{explain(error, at_fault)[0]})"
