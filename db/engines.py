"""Connections: how SQLite and PostgreSQL are set up.

SQLite runs in WAL mode. The execution option `begin` is what begins a transaction: both drivers run
in autocommit, so that on PostgreSQL the transaction's settings cost no round trip of their own.
Nothing outlives a transaction on the server, so a pooler may give each transaction another one.
"""

import os
import time
import weakref
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy import exc as sql

from db.columns import id_bytes
from db.database_url import PREPARE, prepare_threshold
from db.driver_errors import MOVED, code_of, location, refuse_broken_text, settings_remedy
from db.errors import Unreachable
from db.lost_replies import ask_after_lost_replies
from db.path_errors import explain, named_path, shown
from db.sharing import file_mode, is_shared

BUSY_TIMEOUT_S = 30
WAL_BYTES = 64 * 2**20  # to which the file is cut back after it grew

POSTGRESQL_CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
PING_AFTER_S = 5.0  # a pooled connection that was idle for longer is tried before it is used

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def open_engine(url: URL) -> Engine:
    """An engine for a parsed URL, usable after a fork too. Nothing is connected yet."""
    sqlite = url.get_backend_name() == "sqlite"
    engine = _sqlite_engine(url) if sqlite else _postgresql_engine(url)
    _engines.add(engine)
    return engine


def _sqlite_engine(url: URL) -> Engine:
    file = Path(str(url.database))
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_shared(file.parent):
            # by itself, SQLite makes a file that a group cannot write; others take its mode
            file.touch(file_mode(file.parent))
    except OSError as error:
        at_fault = named_path(error, file)
        raise Unreachable(
            f"the {location(url)} cannot be created in {shown(at_fault)}: "
            f"{explain(error, at_fault)[0]}",
            remedy=settings_remedy(url),
        ) from error
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # `_begin` begins transactions, not the driver
        connection.create_function("id_bytes", 1, id_bytes, deterministic=True)
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        # With NORMAL, a power cut may lose the last commits: jobs whose ids were already printed.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        # what would undo a statement, for which it would otherwise write files
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        cursor.close()

    event.listen(engine, "handle_error", refuse_broken_text)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that reads, then writes, fails if another has written meanwhile.
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _postgresql_engine(url: URL) -> Engine:
    threshold = prepare_threshold(url)
    # the URL's own options win
    ours = {name: value for name, value in POSTGRESQL_CONNECT.items() if name not in url.query}
    engine = create_engine(url.difference_update_query([PREPARE]), connect_args=ours)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.autocommit = True  # `_begin` begins transactions, not the driver
        connection.prepare_threshold = threshold
        if threshold is not None and PREPARE not in url.query and _is_pooled(connection):
            connection.prepare_threshold = None

    event.listen(engine, "handle_error", _leave_moved_server)

    @event.listens_for(engine, "checkin")
    def _put_back(_: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _take_out(connection: Any, record: Any, _: Any) -> None:
        # SQLAlchemy's own `pool_pre_ping` would add a round trip to every transaction
        idle_since = record.info.get("idle_since", time.monotonic())
        if time.monotonic() - idle_since > PING_AFTER_S and not _answers(engine, connection):
            raise sql.InvalidatePoolError

    _begin_with_ids(engine)
    ask_after_lost_replies(engine)
    return engine


def _begin_with_ids(engine: Engine) -> None:
    """Begin transactions as told; note the id of one that learns it."""

    @event.listens_for(engine, "do_execute_no_params")
    def _execute_all(cursor: Any, statements: str, _: Any) -> bool:
        cursor.execute(statements)
        while cursor.nextset():  # what the last one returns counts
            pass
        return True

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        begin = connection.get_execution_options().get("begin", "BEGIN")
        result = connection.exec_driver_sql(begin, execution_options={"no_parameters": True})
        connection.info["transaction"] = result.scalar() if result.returns_rows else None


def _leave_moved_server(context: Any) -> None:
    """Have the pool drop its connections to a server that goes or takes no writes any more."""
    if code_of(context.original_exception) in MOVED:
        context.is_disconnect = True


def _is_pooled(connection: Any) -> bool:
    """Whether a pooler is in between: it makes up the process id that a client is greeted with.

    Statements that the driver prepared on one server process are unknown to the next.
    """
    (server_pid,) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    return bool(server_pid != connection.info.backend_pid)


def _answers(engine: Engine, connection: Any) -> bool:
    try:
        return bool(engine.dialect.do_ping(connection))
    except engine.dialect.loaded_dbapi.Error:
        return False


def _forget_connections() -> None:
    # a forked child must neither use its parent's connections nor close them
    for engine in list(_engines):
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)
