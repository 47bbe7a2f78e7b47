"""What the databases' own errors become: each by its code, none by its class."""

import sqlite3

import psycopg.errors
import pytest
from sqlalchemy import exc, make_url, text

from db.driver_errors import Busy, NoTables, translate_errors
from db.errors import BadRecord, GenmillError, Refused, SchemaMismatch, ShortOfMemory, Unreachable
from db.session import Database

POSTGRESQL = make_url("postgresql://ann:secret@host/genmill")
SQLITE = make_url("sqlite:////nowhere/genmill.db")

PG_CODES = {
    Busy: "40000 40001 40P01 55P03",
    Unreachable: "08000 08001 08003 08004 08006 08007 08P01 25006 25P03 25P04 26000 28000 28P01 "
    "3D000 40003 42501 42P05 53000 53100 53200 53300 53400 55000 55006 57000 57014 57P01 57P02 "
    "57P03 57P04 57P05 58000 58030 58P01 58P02 F0000 F0001 XX000 XX001 XX002",
    Refused: "22001 22003 22021 54000 54001 54011 54023",
    SchemaMismatch: "42703",
    NoTables: "42P01",
    None: "0A000 21000 23502 23503 23505 25P02 38000 39000 42601 42804 40002 P0001",
}
SQLITE_CODES = {
    Busy: "BUSY BUSY_RECOVERY BUSY_SNAPSHOT BUSY_TIMEOUT LOCKED LOCKED_SHAREDCACHE PROTOCOL SCHEMA",
    Unreachable: "IOERR IOERR_READ IOERR_WRITE IOERR_FSYNC IOERR_SHORT_READ IOERR_SHMSIZE "
    "IOERR_CORRUPTFS FULL READONLY READONLY_DBMOVED READONLY_DIRECTORY READONLY_RECOVERY CANTOPEN "
    "CANTOPEN_ISDIR CORRUPT CORRUPT_INDEX NOTADB PERM AUTH NOLFS INTERRUPT",
    ShortOfMemory: "NOMEM IOERR_NOMEM",
    Refused: "TOOBIG",
    None: "CONSTRAINT_UNIQUE CONSTRAINT_FOREIGNKEY MISUSE RANGE ERROR MISMATCH",
}


def codes(table):
    return [(code, kind) for kind, names in table.items() for code in names.split()]


def translated(url, error):
    """What the driver's error becomes once SQLAlchemy has wrapped it; None if it stays."""
    base = psycopg.Error if isinstance(error, psycopg.Error) else sqlite3.Error
    wrapped = exc.DBAPIError.instance("SELECT 1", {}, error, base)
    try:
        with translate_errors(url):
            raise wrapped
    except GenmillError as found:
        return found
    except exc.DBAPIError:
        return None


def sqlite_error(name, said="it broke"):
    kind = sqlite3.DatabaseError
    if name.startswith(("SQLITE_IOERR", "SQLITE_FULL", "SQLITE_READONLY", "SQLITE_ERROR")):
        kind = sqlite3.OperationalError
    if name == "SQLITE_TOOBIG":
        kind = sqlite3.DataError
    error = kind(said)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(("code", "kind"), codes(PG_CODES))
def test_each_of_postgresqls_codes(code, kind) -> None:
    try:
        cls = psycopg.errors.lookup(code)
    except KeyError:
        cls = type("Coded", (psycopg.errors.get_base_exception(code),), {"sqlstate": code})
    found = translated(POSTGRESQL, cls("it broke"))
    assert type(found) is (kind or type(None))
    if found is not None:
        assert "it broke" in str(found) or kind is NoTables
        assert found.remedy or kind is Refused
        assert "secret" not in str(found)


@pytest.mark.parametrize(("code", "kind"), codes(SQLITE_CODES))
def test_each_of_sqlites_codes(code, kind) -> None:
    found = translated(SQLITE, sqlite_error(f"SQLITE_{code}"))
    assert type(found) is (kind or type(None))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("no such table: jobs", NoTables),
        ("no such column: shards.x", SchemaMismatch),
        ("table jobs has no column named x", SchemaMismatch),
        ("malformed JSON", BadRecord),
        ("JSON cannot hold BLOB values", BadRecord),
        ('near "SELCT": syntax error', type(None)),
    ],
)
def test_of_sqlites_plain_error_only_the_text_tells(said, kind) -> None:
    assert type(translated(SQLITE, sqlite_error("SQLITE_ERROR", said))) is kind


def test_without_a_code_a_lost_connection_is_told_by_its_class() -> None:
    lost = translated(POSTGRESQL, psycopg.OperationalError("server closed the connection"))
    assert type(lost) is Unreachable
    assert translated(POSTGRESQL, psycopg.ProgrammingError("no results to fetch")) is None
    assert "pooler" in str(
        translated(POSTGRESQL, psycopg.OperationalError("unsupported startup parameter: options"))
    )


def test_a_server_that_takes_no_writes_is_left_for_one_that_does(postgresql_database_url) -> None:
    database = Database(postgresql_database_url)

    def write(session):
        session.execute(text("INSERT INTO retention VALUES ('x', now(), '\\x00')"))

    def pid():
        with database.read() as session:
            return session.scalar(text("SELECT pg_backend_pid()"))

    before = pid()
    with pytest.raises(Unreachable, match=r"takes no writes now.*failover"):
        database.transact(lambda s: (s.execute(text("SET TRANSACTION READ ONLY")), write(s)))
    assert pid() != before, "the pool keeps no connection to it"
    database.dispose()


def test_a_file_that_cannot_be_written_to_pauses(sqlite_url) -> None:
    database = Database(sqlite_url)

    def write(session):
        session.execute(text("PRAGMA query_only = ON"))
        session.execute(text("DELETE FROM jobs"))

    with pytest.raises(Unreachable, match=r"cannot use the SQLite file .* readonly"):
        database.transact(write)
    database.dispose()
