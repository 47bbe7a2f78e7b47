"""Copies of a whole record: into an SQLite file, and from one into an empty database.

The file has this version's tables whichever database the record is in, so a copy can be read by
anybody, upgraded like any other record, and loaded into a database of the other kind.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Select,
    Table,
    bindparam,
    create_engine,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy import exc as sql
from sqlalchemy.orm import Session

from db import schema
from db.audit_trail import note
from db.due import reset_dispatched
from db.errors import BadInput, DigestMismatch, Refused, Unreachable
from db.moves import NOT_HELD, end_attempts, record_transitions
from db.session import Database, clock
from db.states import ShardState
from db.tables import Base, JobCount, OwnStore, Rate, Retention, Shard, Worker

RESTORED = "restored"  # in the audit trail
PAGES_AT_ONCE = 2000  # of SQLite
ROWS_AT_ONCE = 1000
# the one is kept by triggers; the other belongs to the database, whatever is loaded into it
NOT_COPIED = {JobCount.__tablename__, OwnStore.__tablename__}
# rows of these do not make a record used: a worker or scheduler that runs already writes them
HOUSEKEEPING = {Rate.__tablename__, Retention.__tablename__, Worker.__tablename__}

Show = Callable[[int], None]  # gets the rows or pages that were copied so far


def save(database: Database, path: Path, *, show: Show = lambda _: None) -> None:
    """Copy the record as it is at one moment into the new file `path`, while others write it."""
    schema.check(database)
    try:
        if database.dialect == "sqlite":
            _save_pages(database, path, show)
        else:
            _save_rows(database, path, show)
        _close(path)
    except sqlite3.Error as error:  # of the driver itself, which copies pages
        raise Unreachable(
            f"the record cannot be copied to {path}: {error}", remedy="free some disk space"
        ) from error


def upgrade(path: Path) -> None:
    """Upgrade a copy to this version's schema. Raises `SchemaMismatch` for a newer one."""
    schema.upgrade(f"sqlite:///{path}")
    _close(path)


def revision_of(copy: Connection) -> str | None:
    """The revision of a copy's schema."""
    found: str | None = copy.scalar(text("SELECT version_num FROM alembic_version"))
    return found


@contextmanager
def opened(path: Path) -> Iterator[Connection]:
    """A connection that reads a copy; nothing is written beside it. Raises `BadInput`."""
    # immutable: nobody writes it, and the folder may be read-only
    options = {"immutable": "1", "uri": "true"}
    place = f"file:{quote(str(path.absolute()))}"
    engine = create_engine(URL.create("sqlite", database=place, query=options))
    try:
        with engine.connect() as connection:
            try:
                revision_of(connection)
            except sql.DatabaseError as error:
                raise BadInput(f"{path} is not a copy of a record: {error.orig}") from error
            yield connection
    finally:
        engine.dispose()


def store_id_in(copy: Connection) -> str | None:
    """The id of the store that belongs to a copied record."""
    found: str | None = copy.scalar(select(OwnStore.id))
    return found


def refuse_used(database: Database) -> None:
    """Raise `Refused` unless the record is empty."""
    with database.read() as session:
        _refuse_used(session)


def load(
    copy: Connection,
    database: Database,
    *,
    store_id: str,
    made_at: str,
    who: str,
    show: Show = lambda _: None,
) -> tuple[int, int]:
    """Load a copy into an empty record, all of it or nothing; return the rows and void leases.

    Attempts that ran when the copy was made are given back, not counted as failures. `store_id` is
    the store's from now on. The audit trail says that `who` restored a copy that was `made_at` that
    time. Raises `Refused` if the record is not empty.
    """
    with database.connect() as connection:
        if database.dialect == "postgresql":  # on SQLite, BEGIN IMMEDIATE has locked already
            tables = ", ".join(table.name for table in _tables())
            connection.execute(text(f"LOCK TABLE {tables} IN EXCLUSIVE MODE"))
        session = Session(connection)
        _refuse_used(session)
        for housekeeping in (Rate, Retention, Worker):
            session.execute(delete(housekeeping))
        rows = _copy_rows(copy, connection, show)
        session.execute(delete(OwnStore))
        session.execute(insert(OwnStore).values(only=1, id=store_id, made=True))
        void = _void_leases(session)
        note(session, who, RESTORED, "record", {"backup": made_at, "rows": rows, "released": void})
        session.flush()
    return rows, void


def _close(path: Path) -> None:
    """Make a copy one file, which can be read where it lies, and check it."""
    with closing(sqlite3.connect(path)) as saved:
        saved.execute("PRAGMA journal_mode = DELETE")
        (found,) = saved.execute("PRAGMA quick_check").fetchone()
    if found != "ok":
        raise DigestMismatch(f"the copy {path} is damaged: {found}")


def _save_pages(database: Database, path: Path, show: Show) -> None:
    with database.snapshot() as source, closing(sqlite3.connect(path)) as target:
        source.execute(text("SELECT 1 FROM alembic_version"))  # now the snapshot is taken
        pages = source.connection.driver_connection
        assert isinstance(pages, sqlite3.Connection)  # noqa: S101 - for mypy: it is SQLite's
        pages.backup(
            target,
            pages=PAGES_AT_ONCE,
            progress=lambda _, left, total: show(total - left),
            sleep=0.01,
        )


def _save_rows(database: Database, path: Path, show: Show) -> None:
    path.unlink(missing_ok=True)
    file = f"sqlite:///{path}"
    schema.upgrade(file)
    copy = Database(file)
    try:
        with database.snapshot() as source, copy.connect() as target:
            _copy_rows(source, target, show)
            for row in source.execute(select(OwnStore.__table__)).mappings():
                target.execute(insert(OwnStore).values(**row))
    finally:
        copy.dispose()


def _copy_rows(source: Connection, target: Connection, show: Show) -> int:
    total = 0
    for table in _tables():
        own = [column for column in table.columns if _refers_to_own_table(column)]
        for rows in _partitions(source, select(table)):
            target.execute(insert(table), [row | {each.name: None for each in own} for row in rows])
            total += len(rows)
            show(total)
        for column in own:  # now every row that it may refer to is there
            _fill_in(source, target, column)
        counted = select(func.count()).select_from(table)
        if source.scalar(counted) != target.scalar(counted):
            raise DigestMismatch(f"not all rows of {table.name} were copied")
    return total


def _fill_in(source: Connection, target: Connection, column: Column[str]) -> None:
    table = column.table
    (key,) = table.primary_key
    statement = update(table).where(key == bindparam("of")).values({column: bindparam("to")})
    given = select(key.label("of"), column.label("to")).where(column.is_not(None))
    for some in _partitions(source, given):
        target.execute(statement, some)


def _partitions(source: Connection, statement: Select[Any]) -> Iterator[list[dict[str, Any]]]:
    """Rows as they come, so that memory stays flat."""
    streamed = statement.execution_options(yield_per=ROWS_AT_ONCE)
    with source.execute(streamed) as result:
        for rows in result.mappings().partitions():
            yield [dict(row) for row in rows]


def _tables() -> list[Table]:
    return [table for table in Base.metadata.sorted_tables if table.name not in NOT_COPIED]


def _refers_to_own_table(column: Column[object]) -> bool:
    return any(key.column.table is column.table for key in column.foreign_keys)


def _refuse_used(session: Session) -> None:
    for table in _tables():
        if table.name in HOUSEKEEPING:
            continue
        if session.scalar(select(exists(select(literal_column("1")).select_from(table)))):
            raise Refused(
                f"the database is not empty: its table {table.name} has rows",
                remedy="restore into a new home (GENMILL_HOME) or another database "
                "(GENMILL_DATABASE_URL)",
            )


def _void_leases(session: Session) -> int:
    """Give back every running shard, and stop every worker; return how many were running.

    Whoever ran them finds no row of its fence and owner, and commits nothing.
    """
    at, total = clock(session), 0
    reason = "the record was restored from a backup"
    running = select(Shard.id, Shard.job_id).where(Shard.status == ShardState.RUNNING)
    while some := session.execute(running.limit(ROWS_AT_ONCE)).all():
        ids = [row.id for row in some]
        end_attempts(session, ids, "released", at=at, error=reason)
        moves = [(r.job_id, r.id, ShardState.RUNNING, ShardState.QUEUED, reason) for r in some]
        record_transitions(session, moves, at=at)
        back = {"status": ShardState.QUEUED, "not_before": at, "last_error": reason, **NOT_HELD}
        session.execute(
            update(Shard)
            .where(Shard.id.in_(ids))
            .values(**back, waiting=False, dispatched_at=None, releases=Shard.releases + 1)
            .execution_options(synchronize_session=False)
        )
        total += len(ids)
    reset_dispatched(session)
    session.execute(update(Worker).where(Worker.stopped_at.is_(None)).values(stopped_at=at))
    return total
