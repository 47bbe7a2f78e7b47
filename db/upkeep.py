"""What keeps a database from cleaning up after itself, so that it grows and slows down."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import bindparam, text
from sqlalchemy.orm import Session

MAX_AGE_S = 300  # of a transaction; a write of Genmill's ends within a minute
MAX_AGE_TRANSACTIONS = 1_000_000  # that have begun since
MAX_DEAD_ROWS = 50_000
MAX_DEAD_SHARE = 0.5  # of the live rows
MAX_WAL_BYTES = 64 * 2**20  # that wait to be written into the file; usually 4 MiB

HOT = ("shards", "jobs", "workers", "job_counts")  # their rows are updated all the time

LONG_TRANSACTIONS = text("""
SELECT pid, state, usename, extract(epoch FROM clock_timestamp() - xact_start)::bigint AS age_s
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
AND xact_start < clock_timestamp() - make_interval(secs => :age_s)
ORDER BY xact_start LIMIT 3
""")
PREPARED = text("""
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::bigint AS age_s
FROM pg_prepared_xacts
WHERE database = current_database()
AND prepared < clock_timestamp() - make_interval(secs => :age_s)
ORDER BY prepared LIMIT 3
""")
REPLICAS = text("""
SELECT 'replication slot ' || slot_name AS name, age(xmin) AS behind
FROM pg_replication_slots WHERE age(xmin) > :transactions
UNION ALL
SELECT 'standby ' || application_name, age(backend_xmin)
FROM pg_stat_replication WHERE age(backend_xmin) > :transactions
""")
DEAD_ROWS = text("""
SELECT relname, n_dead_tup AS dead, n_live_tup AS live FROM pg_stat_user_tables
WHERE relname IN :tables AND schemaname = current_schema()
AND n_dead_tup > :rows AND n_dead_tup > :share * n_live_tup
ORDER BY relname
""").bindparams(bindparam("tables", expanding=True))
AUTOVACUUM_OFF = text("""
SELECT 'on the server' AS place
WHERE 'off' IN (current_setting('autovacuum'), current_setting('track_counts'))
UNION ALL
SELECT 'for the table ' || relname FROM pg_class
WHERE relname IN :tables AND relnamespace = to_regnamespace(current_schema())
AND 'autovacuum_enabled=false' = ANY(reloptions)
""").bindparams(bindparam("tables", expanding=True))


class Problem(NamedTuple):
    """What is wrong, and what to do about it."""

    found: str
    remedy: str


def problems(session: Session) -> list[Problem]:
    """Everything that keeps deleted and replaced rows from being cleaned up."""
    if session.get_bind().dialect.name == "sqlite":
        return list(_of_sqlite(session))
    return [
        *_long_transactions(session),
        *_prepared_transactions(session),
        *_replicas(session),
        *_dead_rows(session),
        *_autovacuum_off(session),
    ]


def _of_sqlite(session: Session) -> Iterator[Problem]:
    page_size = int(session.scalar(text("PRAGMA page_size")) or 0)
    _, pages, written = session.execute(text("PRAGMA wal_checkpoint(PASSIVE)")).one()
    waiting = (pages - written) * page_size
    if waiting > MAX_WAL_BYTES:
        yield Problem(
            f"{waiting / 2**20:.0f} MiB of the WAL cannot be written into the database's file",
            "a process has been reading it for long: find it with `fuser` and end it",
        )


def _long_transactions(session: Session) -> Iterator[Problem]:
    for row in session.execute(LONG_TRANSACTIONS, {"age_s": MAX_AGE_S}):
        yield Problem(
            f"a transaction of {row.usename} has been open for {row.age_s} s ({row.state})",
            f"end it, for example with SELECT pg_terminate_backend({row.pid})",
        )


def _prepared_transactions(session: Session) -> Iterator[Problem]:
    for row in session.execute(PREPARED, {"age_s": MAX_AGE_S}):
        yield Problem(
            f"a prepared transaction has been open for {row.age_s} s",
            f"end it with COMMIT PREPARED or ROLLBACK PREPARED '{row.gid}'",
        )


def _replicas(session: Session) -> Iterator[Problem]:
    for row in session.execute(REPLICAS, {"transactions": MAX_AGE_TRANSACTIONS}):
        yield Problem(
            f"the {row.name} is {row.behind} transactions behind",
            "start its consumer again, or drop it if nothing needs it",
        )


def _dead_rows(session: Session) -> Iterator[Problem]:
    bounds = {"tables": HOT, "rows": MAX_DEAD_ROWS, "share": MAX_DEAD_SHARE}
    for row in session.execute(DEAD_ROWS, bounds):
        yield Problem(
            f"{row.dead} dead rows in {row.relname}, beside {row.live} live ones",
            f"end what holds them (see the other findings), then run VACUUM {row.relname}",
        )


def _autovacuum_off(session: Session) -> Iterator[Problem]:
    for row in session.execute(AUTOVACUUM_OFF, {"tables": HOT}):
        yield Problem(f"autovacuum is off {row.place}", "turn it on, with track_counts")
