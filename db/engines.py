"""Connections: which database a URL means, and how SQLite and PostgreSQL are set up.

SQLite runs in WAL mode. The execution option `begin` is the statement that begins a transaction on
SQLite, or its first statement on PostgreSQL.
"""

import os
import weakref
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy import exc as sql

from db.driver_errors import location, settings_remedy
from db.errors import Refused, Unreachable

BUSY_TIMEOUT_S = 30
FORMS = "use sqlite:///path/to/file.db or postgresql://user:password@host:5432/database"

POSTGRESQL_CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "options": "-c timezone=UTC -c lock_timeout=20s",
}

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def parse_url(text: str) -> URL:
    """The URL with the driver to use. Raises `Refused` for other databases, showing no password."""
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except (sql.ArgumentError, sql.NoSuchModuleError, ValueError):
        # the cause's message may hold the password
        raise Refused("the database URL cannot be read", remedy=FORMS) from None
    if "@" in (url.host or ""):
        raise Refused(
            "the database URL has an '@' in its user or password", remedy="write it as %40"
        )
    if backend in {"postgres", "postgresql"}:
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise Refused(f"databases of kind {backend!r} are not supported", remedy=FORMS)
    if not url.database or ":memory:" in url.database:
        raise Refused("the SQLite URL names no file", remedy=FORMS)
    return url.set(drivername="sqlite")


def open_engine(url: URL) -> Engine:
    """An engine for a parsed URL, usable after a fork too. Nothing is connected yet."""
    sqlite = url.get_backend_name() == "sqlite"
    engine = _sqlite_engine(url) if sqlite else _postgresql_engine(url)
    _engines.add(engine)
    return engine


def _sqlite_engine(url: URL) -> Engine:
    try:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unreachable(
            f"cannot create a folder for the {location(url)}: {error.strerror}",
            remedy=settings_remedy(url),
        ) from error
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # `_begin` begins transactions, not the driver
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        # With NORMAL, a power cut may lose the last commits: jobs whose ids were already printed.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that reads, then writes, fails if another has written meanwhile.
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


def _forget_connections() -> None:
    # a forked child must neither use its parent's connections nor close them
    for engine in list(_engines):
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)
