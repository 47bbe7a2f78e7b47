"""The chain of migrations keeps the rows of a database that was made by the first one."""

import struct
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    DateTime,
    Float,
    Integer,
    MetaData,
    Table,
    insert,
    select,
    text,
)

from db import jobs, schema
from db.session import Database
from tests.unit.db.old_revisions import migrate, upgrade

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
ROWS = 3
# `test_migration_payload` looks at the members, `test_migration_attempts` at the attempts
MOVED = {"members", "attempts"}  # into the rows of artifacts and of shards
STATES = ("succeeded", "queued", "failed")


@pytest.fixture
def first(unmigrated: Database) -> Database:
    """A database at the first revision, with rows in every table."""
    migrate(unmigrated, "0001")
    with unmigrated.connect() as connection:
        for table in reflected(connection).sorted_tables:
            if table.name != "alembic_version":
                connection.execute(insert(table), [row(table, n) for n in range(ROWS)])
    return unmigrated


def reflected(connection: Connection) -> MetaData:
    metadata = MetaData()
    metadata.reflect(connection)
    return metadata


def row(table: Table, number: int) -> dict[str, Any]:
    """A row whose every column has a value; those of one number refer to each other."""
    return {column.name: value(table.name, column, number) for column in table.columns}


def value(table: str, column: Any, number: int) -> Any:
    if column.name in {"retry_of", "parent_id"}:
        return None
    known = {
        "status": STATES[number],
        "kind": "generate" if table == "jobs" else "samples",
        "start": 0,
        "stop": 1,
        "idx": 0,
        "sample": 0,
        "sha256": f"{number:064x}",
    }
    return known[column.name] if column.name in known else any_value(column.type, number)


def any_value(kind: Any, number: int) -> Any:
    match kind:
        case JSON():
            return {"number": number, "done": 1}
        case DateTime():
            return NOW if kind.timezone else NOW.replace(tzinfo=None)
        case Boolean():
            return False
        case Integer() | BigInteger():
            return number
        case Float():
            return number + 0.25
    # ids, keys and names: rows of one number have the same, and so refer to each other
    if kind.length == 36:
        return str(UUID(int=number))
    return f"{number:036x}"[-(kind.length or 36) :]


def contents(connection: Connection, before: dict[str, list[str]]) -> dict[str, list[Any]]:
    """The rows of each table in `before`, by their first revision's columns that still exist."""
    tables = reflected(connection).tables
    return {
        name: sorted(
            (
                tuple(comparable(cell) for cell in each)
                for each in connection.execute(
                    select(*(tables[name].c[column] for column in columns))
                )
            ),
            key=str,
        )
        for name, columns in before.items()
    }


def comparable(cell: Any) -> Any:
    if isinstance(cell, bytes):  # an id or a digest
        return str(UUID(bytes=cell)) if len(cell) == 16 else text_of(cell)
    return cell.astimezone(UTC) if isinstance(cell, datetime) and cell.tzinfo else cell


def text_of(cell: bytes) -> str:
    return cell.hex() if len(cell) == 32 else cell.decode()


def test_every_row_is_kept_with_what_its_columns_held(first):
    with first.connect() as connection:
        was = reflected(connection).tables
        everything = {
            name: [column.name for column in table.columns]
            for name, table in was.items()
            if name not in MOVED | {"alembic_version"}
        }
        old = contents(connection, everything)
    upgrade(first)
    schema.check(first)
    with first.connect() as connection:
        now = reflected(connection).tables
        assert everything.keys() <= now.keys()
        kept = {
            name: [column for column in columns if column in now[name].columns]
            for name, columns in everything.items()
        }
        new = contents(connection, kept)
    for name, rows in old.items():
        assert len(rows) == len(new[name]) == ROWS, name
        places = [everything[name].index(column) for column in kept[name]]
        expected = sorted((tuple(each[place] for place in places) for each in rows), key=str)
        assert new[name] == expected, name


def test_the_record_works_on_an_upgraded_database(first):
    upgrade(first)
    with first.write() as session:
        assert jobs.counts(session)["queued"] == 1
        [job] = jobs.listing(session, status="queued")
        assert jobs.cancel(session, job.id)
        session.flush()
        assert jobs.counts(session) == dict.fromkeys(
            ("waiting", "queued", "running", "finalizing"), 0
        ) | dict.fromkeys(("succeeded", "failed", "cancelled"), 1)
        assert len(jobs.log_lines(session, job.id)) == 1
        assert len(jobs.points(session, job.id)) == 1


def test_ids_and_digests_are_bytes_and_still_refer_to_each_other(first):
    upgrade(first)
    with first.read() as session:
        joined = (
            "SELECT artifacts.sha256, jobs.id FROM jobs JOIN shards ON shards.job_id = jobs.id "
            "JOIN artifacts ON artifacts.shard_id = shards.id AND artifacts.job_id = jobs.id"
        )
        rows = session.execute(text(joined)).all()
        assert [(len(digest), len(key)) for digest, key in rows] == [(32, 16)] * ROWS
        if first.dialect == "sqlite":
            assert session.execute(text("PRAGMA foreign_key_check")).all() == []


def test_samples_are_indexed(first):
    upgrade(first)
    with first.read() as session:
        data = session.scalars(text("SELECT index_data FROM artifacts")).all()
    assert [len(each) for each in data] == [struct.calcsize("<QI32s")] * ROWS
