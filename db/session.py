"""Sessions, the database's clock, and upserts.

Every write on SQLite begins IMMEDIATE, so that a check and the change it allows are one step.
PostgreSQL runs READ COMMITTED with explicit row locks, a job's before its shard's.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from db.columns import UtcDateTime
from db.database_url import parse_url
from db.driver_errors import Busy, translate_errors
from db.engines import open_engine
from db.lost_replies import LEARN_ID

T = TypeVar("T")

RETRY_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_GIVE_UP = "SET LOCAL lock_timeout = '20s'"

BEGIN_READ = {"sqlite": "BEGIN", "postgresql": _BEGIN}
BEGIN_WRITE = {
    "sqlite": "BEGIN IMMEDIATE",
    # Not in the connection's startup options: poolers refuse those. The server ends the transaction
    # of a client that freezes while it holds a lock.
    "postgresql": f"{_BEGIN}; {_GIVE_UP}; SET LOCAL statement_timeout = '60s'; "
    f"SET LOCAL idle_in_transaction_session_timeout = '30s'; {LEARN_ID}",
}
BEGIN_UPGRADE = {  # rewriting a large table may take an hour
    "sqlite": "BEGIN IMMEDIATE",
    "postgresql": f"{_BEGIN}; {_GIVE_UP}",
}
BEGIN_SNAPSHOT = {  # every statement sees the record as it was at the first
    "sqlite": "BEGIN",
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
}


class Database:
    """A database: sessions that read, that write, and that write with retries.

    `url` is `sqlite:///path` or `postgresql://user:password@host/name`; `Refused` for any other.
    Nothing is connected yet. Can be shared by threads, and used after a fork.
    """

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.dialect = self.url.get_backend_name()
        self._engine = open_engine(self.url)
        self._reader = self._engine.execution_options(begin=BEGIN_READ[self.dialect])
        self._writer = self._engine.execution_options(begin=BEGIN_WRITE[self.dialect])

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session for reading; whatever it writes is rolled back."""
        with translate_errors(self.url), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a session that commits at the end of the block, or rolls back if it raises.

        If the reply to the commit is lost, the database is asked whether it took place. Only if the
        database then stays away, `Unreachable` says that this is not known.
        """
        with (
            translate_errors(self.url),
            Session(self._writer, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Open a bare connection that sees the record as it was at its first statement."""
        reader = self._engine.execution_options(begin=BEGIN_SNAPSHOT[self.dialect])
        with translate_errors(self.url), reader.connect() as connection:
            yield connection

    def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a write transaction and return its result; retry when it is `Busy`.

        `work` may run several times, so it must change nothing but the session.
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
        upgrader = self._engine.execution_options(begin=BEGIN_UPGRADE[self.dialect])
        with translate_errors(self.url), upgrader.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close every pooled connection; the next use opens new ones."""
        self._engine.dispose()


class Now(FunctionElement[datetime]):
    """The time by the database's clock, inside a statement."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(Now, "sqlite")
def _now_on_sqlite(*_: Any, **__: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"  # to the millisecond, as times are stored


@compiles(Now, "postgresql")
def _now_on_postgresql(*_: Any, **__: Any) -> str:
    return "clock_timestamp()"


def clock(session: Session) -> datetime:
    """The time by the database's clock, aware and in UTC: the only clock that decisions use."""
    now = session.scalar(_NOW)
    assert isinstance(now, datetime)  # noqa: S101 - for mypy: there is nothing else
    return now


_NOW = select(Now())


def insert_new(session: Session, table: Any, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows whose keys are not taken; return how many were inserted."""
    if not rows:
        return 0
    target: Table = table.__table__
    statement = _insert(session)(target).values(list(rows)).on_conflict_do_nothing()
    # count the returned rows: PostgreSQL's driver gives no row count here
    return len(session.execute(statement.returning(*target.primary_key)).all())


def upsert(session: Session, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; if a primary key is taken, replace the other given columns of its row."""
    if not rows:
        return
    target: Table = table.__table__
    statement = _insert(session)(target).values(list(rows))
    keys = [column.name for column in target.primary_key]
    replaced = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    session.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced))


def _insert(session: Session) -> Any:
    # imported by name, because importing both dialects takes longer than a short command
    return import_module(f"sqlalchemy.dialects.{session.get_bind().dialect.name}").insert
