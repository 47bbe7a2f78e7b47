"""Translating the database drivers' errors into Genmill's, each by its code.

The classes of the drivers' errors do not tell: psycopg's `OperationalError` is a lost connection as
well as a statement that is too complex. No message holds a password.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from sqlalchemy import URL
from sqlalchemy import exc as sql
from sqlalchemy.engine import ExceptionContext

from db.causes import Cause
from db.database_url import hosts_of
from db.errors import BadRecord, GenmillError, Refused, SchemaMismatch, ShortOfMemory, Unreachable
from db.path_errors import explain, is_missing, shown


class Busy(Unreachable):
    """The transaction lost to another one and changed nothing; it can be retried."""

    cause = Cause.SERVICE


class NoTables(SchemaMismatch):
    """The database has no tables yet."""

    cause = Cause.MACHINE
    lasting = True


class Rule(NamedTuple):
    """What a code means; the remedy is about the settings unless another is given."""

    kind: type[GenmillError]
    problem: str = "cannot use the {}"
    remedy: str | None = None


_BUSY = Rule(Busy, "the {} is busy", "try again")
_NOT_USABLE = Rule(Unreachable)
_FULL = Rule(Unreachable, "no space left for the {}", "free some disk space")
_DISK = Rule(Unreachable, "the disk or system of the {} fails", "check its disk and its log")
_POOLED = Rule(
    Unreachable,
    "a pooler stands before the {}",
    "add ?prepare_threshold=off to GENMILL_DATABASE_URL",
)
_STARTUP = Rule(
    Unreachable,
    "a pooler stands before the {}",
    "leave ?options= out of GENMILL_DATABASE_URL (`ALTER ROLE ... SET` does the same), or take the "
    "address without the pooler",
)
_SLOW = Rule(Unreachable, "no answer in time from the {}", "see `genmill doctor --check database`")
_READ_ONLY = Rule(
    Unreachable,
    "the {} takes no writes now",
    "after a failover, wait for it, or have GENMILL_DATABASE_URL name the server that takes writes",
)
_MOVING = Rule(Unreachable, "the {} is starting or shutting down", "wait for it")
_BEYOND = Rule(Refused, "beyond a limit of the {}", "ask for less at once")
_OTHER_SCHEMA = Rule(
    SchemaMismatch,
    "the {} has another version's tables",
    "run `genmill db upgrade`, or install the Genmill that upgraded it",
)

# by SQLSTATE, its class, or the beginning of SQLite's name of the error; the longest one counts
RULES = {
    "08": Rule(Unreachable, "no connection to the {}"),
    "08P01": _STARTUP,
    "25006": _READ_ONLY,  # read_only_sql_transaction
    "25P03": _SLOW,  # idle_in_transaction_session_timeout
    "25P04": _SLOW,  # transaction_timeout
    "26000": _POOLED,  # invalid_sql_statement_name: prepared on another server process
    "28": _NOT_USABLE,  # invalid user or password
    "3D000": _NOT_USABLE,  # no such database
    "40001": _BUSY,  # serialization_failure
    "40P01": _BUSY,  # deadlock_detected
    "40000": _BUSY,  # transaction_rollback
    "40003": _NOT_USABLE,  # statement_completion_unknown
    "42501": _NOT_USABLE,  # insufficient_privilege
    "42703": _OTHER_SCHEMA,  # undefined_column
    "42P05": _POOLED,  # duplicate_prepared_statement
    "53": Rule(Unreachable, "the {} is short of resources", "see its log"),
    "53100": _FULL,
    "53200": Rule(Unreachable, "the {} is short of memory", "give it more"),
    "53300": Rule(
        Unreachable, "too many connections to the {}", "raise its max_connections, or stop workers"
    ),
    "54": _BEYOND,
    "55": _NOT_USABLE,  # object_not_in_prerequisite_state
    "55P03": _BUSY,  # lock_not_available
    "57": _MOVING,
    "57014": _SLOW,  # query_canceled, by `statement_timeout`
    "58": _DISK,
    "F0": _DISK,  # config_file_error
    "XX": _DISK,  # internal_error, data_corrupted, index_corrupted
    "SQLITE_AUTH": _NOT_USABLE,
    "SQLITE_BUSY": _BUSY,
    "SQLITE_CANTOPEN": _NOT_USABLE,
    "SQLITE_CORRUPT": _NOT_USABLE,
    "SQLITE_FULL": _FULL,
    "SQLITE_INTERRUPT": _SLOW,
    "SQLITE_IOERR": _DISK,
    "SQLITE_IOERR_NOMEM": Rule(ShortOfMemory, "no memory left for the {}", "free some"),
    "SQLITE_IOERR_SHMSIZE": _FULL,  # for the index of its WAL
    "SQLITE_LOCKED": _BUSY,
    "SQLITE_NOLFS": _NOT_USABLE,
    "SQLITE_NOMEM": Rule(ShortOfMemory, "no memory left for the {}", "free some"),
    "SQLITE_NOTADB": _NOT_USABLE,
    "SQLITE_PERM": _NOT_USABLE,
    "SQLITE_PROTOCOL": _BUSY,
    "SQLITE_READONLY": _NOT_USABLE,
    "SQLITE_SCHEMA": _BUSY,
    "SQLITE_TOOBIG": _BEYOND,
}
_DAMAGED = "it was damaged or edited: see `genmill doctor`, or restore a backup"
NO_TEXT = re.compile(r"Could not decode to UTF-8 (column '.+?') with text ")  # Python's driver says
NO_JSON = frozenset({"malformed JSON", "JSON cannot hold BLOB values"})  # SQLite's functions say
# the server that a connection leads to is going, or is no longer the one that takes writes
MOVED = frozenset({"25006", "57P01", "57P02", "57P03", "57P04"})


@contextmanager
def translate_errors(url: URL) -> Iterator[None]:
    """Raise Genmill's errors in place of the driver's; an unknown one is re-raised as it is."""
    try:
        yield
    except sql.NoResultFound:
        raise BadRecord(
            "the record lacks a row that another one refers to",
            remedy=_DAMAGED,
        ) from None
    except OverflowError as error:  # the driver's
        raise Refused(f"a value cannot be stored: {error}") from None
    except (sql.DBAPIError, sql.TimeoutError) as error:
        translation = _translate(error, url)
        if translation is None:
            raise
        raise translation from error


def refuse_broken_text(context: ExceptionContext) -> None:
    """Raise `BadRecord`, where it is read, for a text in an SQLite file that is no UTF-8."""
    if found := NO_TEXT.match(str(context.original_exception)):
        raise BadRecord(f"the record holds no UTF-8 text in the {found[1]}", remedy=_DAMAGED)


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
    code = code_of(cause)
    if "unsupported startup parameter" in text:  # refused while connecting: there is no code
        code = "08P01"
    if code == "42P01" or text.startswith("no such table"):
        return NoTables(f"the {location(url)} has no tables yet", remedy="run `genmill db upgrade`")
    if code == "SQLITE_ERROR" and ("no such column" in text or "has no column named" in text):
        code = "42703"
    if code == "SQLITE_ERROR" and text in NO_JSON:
        return BadRecord(
            f"the record holds no JSON where some belongs ({text})",
            remedy=_DAMAGED,
        )
    rule = _rule(code)
    if rule is None and isinstance(error, sql.DataError):
        return Refused(f"a value cannot be stored: {text}")
    # while connecting, PostgreSQL's driver knows no code
    lost = not code and isinstance(error, sql.OperationalError | sql.TimeoutError)
    if rule is None and (lost or getattr(error, "connection_invalidated", False)):
        rule = _NOT_USABLE
    return _explained(rule, code, text, url) if rule else None


def code_of(error: object) -> str:
    """The SQLSTATE of a driver's error, or SQLite's name of it; empty if it has none."""
    found = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    return str(found or "")


def _rule(code: str) -> Rule | None:
    return next((RULES[code[:n]] for n in range(len(code), 1, -1) if code[:n] in RULES), None)


def _explained(rule: Rule, code: str, text: str, url: URL) -> GenmillError:
    problem = rule.problem.format(location(url))
    if rule.remedy is not None:
        return rule.kind(f"{problem} ({text})", remedy=rule.remedy)
    why = _file_error(url) if code.startswith("SQLITE_") else ""
    return rule.kind(f"{problem}: {text}{why}", remedy=settings_remedy(url))


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
