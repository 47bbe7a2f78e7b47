"""Engines and sessions, the database's clock, and what the database's errors mean.

SQLite runs in WAL mode and every write begins IMMEDIATE, so that a check and the change that it
allows are one step. PostgreSQL runs READ COMMITTED with explicit row locks, job before shard.
"""

import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    insert,
    make_url,
    text,
)
from sqlalchemy import exc as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.errors import GenmillError, Refused, SchemaMismatch, Unreachable

T = TypeVar("T")

BUSY_TIMEOUT_S = 30
RETRY_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

POSTGRESQL_CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "options": "-c timezone=UTC -c lock_timeout=20s",
}

# A client that freezes with a lock must not keep it: the server ends its transaction.
POSTGRESQL_WRITE = "SET LOCAL idle_in_transaction_session_timeout = '30s'"

# serialization_failure, deadlock_detected, lock_not_available
RETRIED_STATES = frozenset({"40001", "40P01", "55P03"})

# disk_full, and the two ways in which SQLite meets it: for data, and for the index of its WAL
NO_SPACE = frozenset({"53100", "SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})

# insufficient_privilege, and what SQLite says of a file that it cannot use as one
NOT_ALLOWED = frozenset({"42501", "SQLITE_NOTADB", "SQLITE_READONLY", "SQLITE_CORRUPT"})


class Busy(Unreachable):
    """The transaction lost to others and left nothing behind: it may run again."""


class Database:
    """One database: sessions to read, to write, and to write with retries.

    `url` is `sqlite:///path` or `postgresql://user:password@host/name`. Nothing is connected yet.
    Raises `Refused` for any other URL. Safe to share between threads, and across a fork.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.dialect = self.url.get_backend_name()
        if self.dialect == "sqlite":
            self._reader = _sqlite_engine(self.url)
            self._writer = self._reader.execution_options(begin="BEGIN IMMEDIATE")
        else:
            self._reader = _postgresql_engine(self.url)
            self._writer = self._reader.execution_options(begin=POSTGRESQL_WRITE)
        _ENGINES.add(self._reader)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session to read with; nothing is kept."""
        with explained(self.url), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session that commits at the end of the block, or rolls back if it raises.

        `Unreachable` out of the block's end means that whether it was committed is unknown:
        read again on a new connection.
        """
        with (
            explained(self.url),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a write transaction, again if it lost to others; return its result.

        `work` may run several times, so it must touch nothing but the session.
        """
        for pause_s in RETRY_PAUSES_S:
            try:
                with self.write() as session:
                    return work(session)
            except Busy:
                time.sleep(pause_s)
        with self.write() as session:
            return work(session)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a bare connection inside a write transaction, for schema changes."""
        with explained(self.url), self._writer.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close every pooled connection; the next use opens new ones."""
        self._reader.dispose()


def clock(session: Session) -> datetime:
    """The database's clock, aware and in UTC: the only clock that decisions read."""
    if session.get_bind().dialect.name == "sqlite":
        now = session.scalar(text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"))
        return datetime.fromisoformat(str(now)).replace(tzinfo=UTC)
    now = session.scalar(text("SELECT clock_timestamp()"))
    assert isinstance(now, datetime)  # noqa: S101 - tells the type; PostgreSQL returns no other
    return now.astimezone(UTC)


def insert_rows(session: Session, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many rows, past the unit of work: several times as fast."""
    if rows:
        target: Table = table.__table__
        session.execute(insert(target), list(rows))


def insert_new(session: Session, table: Any, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows whose key is not taken yet; return how many were inserted."""
    if not rows:
        return 0
    target: Table = table.__table__
    statement = _insert(session)(target).values(list(rows)).on_conflict_do_nothing()
    # rows returned are counted, for PostgreSQL's driver gives no row count here
    return len(session.execute(statement.returning(*target.primary_key)).all())


def upsert(session: Session, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; where the primary key is taken, replace the other columns given."""
    if not rows:
        return
    target: Table = table.__table__
    statement = _insert(session)(target).values(list(rows))
    keys = [column.name for column in target.primary_key]
    replaced = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced))


def _insert(session: Session) -> Any:
    sqlite_in_use = session.get_bind().dialect.name == "sqlite"
    return sqlite.insert if sqlite_in_use else postgresql.insert


_ENGINES: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def _forget_connections() -> None:
    # A forked child must not speak over its parent's connections, nor close them.
    for engine in list(_ENGINES):
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)


def _parse(text_url: str) -> URL:
    try:
        url = make_url(text_url)
        backend = url.get_backend_name()
    except (sql.ArgumentError, sql.NoSuchModuleError, ValueError):
        # the message of the cause may hold the password
        raise Refused(f"the database URL cannot be read; {_FORMS}") from None
    if "@" in (url.host or ""):
        raise Refused("the database URL has an '@' in its user or password; write it as %40")
    if backend in {"postgres", "postgresql"}:
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database and ":memory:" not in url.database:
        return url.set(drivername="sqlite")
    raise Refused(f"a database of kind {url.drivername!r} without a file or server; {_FORMS}")


_FORMS = "use sqlite:///path/to/file.db or postgresql://user:password@host:5432/database"


def _sqlite_engine(url: URL) -> Engine:
    try:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unreachable(
            f"cannot make a folder for the {place(url)}: {error.strerror}; {_remedy(url)}"
        ) from error
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver must not begin for us: see `_begin`
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        # WAL with NORMAL may lose the last commits at a power cut: a printed job id would be lost.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that reads, then writes, fails when another wrote in between.
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(
        url, connect_args=POSTGRESQL_CONNECT, pool_pre_ping=True, isolation_level="READ COMMITTED"
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("begin")
        if statement:
            connection.exec_driver_sql(statement)

    return engine


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turn the driver's errors into ours, with the place and without the password."""
    try:
        yield
    except (sql.DBAPIError, sql.TimeoutError) as error:
        meant = _meaning(error, url)
        if meant is None:
            raise
        raise meant from error


def place(url: URL) -> str:
    """Where a database is, as people write it, without user and password."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite file {url.database}"
    where = f"{url.host or 'local socket'}:{url.port or 5432}"
    return f"PostgreSQL database {url.database!r} at {where}"


def _meaning(error: sql.DBAPIError | sql.TimeoutError, url: URL) -> GenmillError | None:
    cause = getattr(error, "orig", None) or error
    says = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or ""
    if code in RETRIED_STATES or code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(f"the {place(url)} is busy: {says}; try again")
    if code in NO_SPACE:
        return Unreachable(f"no space left for the {place(url)}; free some disk space ({says})")
    if code == "42P01" or says.startswith("no such table"):
        return SchemaMismatch(f"the {place(url)} has no tables yet; run `genmill db upgrade`")
    if isinstance(error, sql.DataError):
        return Refused(f"a value cannot be stored: {says}")
    if code in NOT_ALLOWED or _is_lost(error):
        return Unreachable(f"cannot use the {place(url)}: {says}; {_remedy(url)}")
    return None


def _remedy(url: URL) -> str:
    home = "GENMILL_HOME and " if url.get_backend_name() == "sqlite" else ""
    return f"check {home}GENMILL_DATABASE_URL"


def _is_lost(error: sql.DBAPIError | sql.TimeoutError) -> bool:
    if isinstance(error, sql.DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, sql.OperationalError | sql.TimeoutError)
