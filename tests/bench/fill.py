"""A large record, built in bulk: a million jobs in less than a minute instead of hours.

Columns are those of `db.tables`: a row gets the values that its table has columns for, and the
columns' own defaults for the rest.
"""

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from sqlalchemy import Table, make_url

from db.columns import UtcDateTime, new_id
from db.session import Database
from db.tables import Base, Batch, Job, Shard, Transition, Worker

CHUNK = 10_000
SPEC = {"kind": "generate", "model": "digits:1", "count": 1, "seed": 0, "label": None}
PAST = datetime.now(UTC) - timedelta(hours=1)
WORK_KEY = 7_000_000_001
LEASE_FREE = {"fence": 0, "claims": 0, "failures": 0, "releases": 0, "dispatch_no": 0}


@dataclass(frozen=True)
class Shape:
    """How a queue is divided: batches of jobs of shards. Jobs without a batch stand alone."""

    jobs: int
    shards: int = 1  # of each job
    samples: int = 1  # of each shard
    batches: int = 0

    @property
    def name(self) -> str:
        """The shape in words."""
        of_jobs = f"{self.shards:,} shard{'s' * (self.shards > 1)}"
        if self.batches:
            each = self.jobs // self.batches
            return f"{self.batches:,} batch{'es' * (self.batches > 1)} of {each:,} x {of_jobs}"
        return f"{self.jobs:,} job{'s' * (self.jobs > 1)} of {of_jobs}"


def fill(database: Database, shape: Shape, *, status: str = "queued") -> list[str]:
    """Insert jobs and shards, all in `status`; return the ids of some of the jobs.

    Statistics are brought up to date, as autovacuum does within a minute.
    """
    writer = _writer(database)
    batches = [new_id() for _ in range(shape.batches)]
    jobs = [
        (new_id(), batches[n * shape.batches // shape.jobs] if batches else None)
        for n in range(shape.jobs)
    ]
    size = shape.jobs // max(shape.batches, 1)
    whole = ({"id": each, "size": size, "complete_at": PAST} for each in batches)
    writer(Batch, whole)
    writer(Job, (_job(*job, shape=shape, status=status) for job in jobs))
    shards = itertools.product(jobs, range(shape.shards))
    writer(Shard, (_shard(*job, idx, shape=shape, status=status) for job, idx in shards))
    writer(Transition, ({"job_id": job, "old": None, "new": "queued"} for job, _ in jobs))
    vacuum(database)
    return [job for job, _ in jobs[:: max(1, len(jobs) // 100)]]


def add_worker(database: Database) -> str:
    """Record a live worker boot; return its id."""
    boot_id, now = new_id(), datetime.now(UTC) + timedelta(hours=2)  # live for the whole run
    values = {"boot_id": boot_id, "host": "bench", "pid": 1, "device": "cpu", "heartbeat_at": now}
    _writer(database)(Worker, iter([values | {"started_at": now}]))
    return boot_id


def _job(job_id: str, batch_id: str | None, *, shape: Shape, status: str) -> dict[str, Any]:
    ended = PAST if status in {"succeeded", "failed", "cancelled"} else None
    return {
        "id": job_id,
        "kind": "generate",
        "spec": SPEC | {"count": shape.shards * shape.samples},
        "spec_hash": "0" * 64,
        "status": status,
        "model": "digits",
        "batch_id": batch_id,
        "samples": shape.shards * shape.samples,
        "finished_at": ended,
        "collected_at": ended,
    }


def _shard(
    job_id: str, batch_id: str | None, idx: int, *, shape: Shape, status: str
) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "idx": idx,
        "start": idx * shape.samples,
        "stop": (idx + 1) * shape.samples,
        "status": status,
        "group_id": batch_id or job_id,
        "urgency": 0,
        "work_key": WORK_KEY,
        **LEASE_FREE,
    }


def rows_of(table: Table, values: "Rows") -> Iterator[list[Any]]:
    """Rows in the order of the table's columns: given values, else the columns' own defaults.

    A time that has no default is an hour ago.
    """
    columns = [(column.name, _default_of(column)) for column in table.columns]
    for given in values:
        yield [given[name] if name in given else default() for name, default in columns]


def _default_of(column: Any) -> Callable[[], Any]:
    default = column.default
    if default is not None:
        return partial(default.arg, None) if default.is_callable else lambda: default.arg
    if not column.nullable and isinstance(column.type, UtcDateTime):
        return lambda: PAST
    return lambda: None


Rows = Iterator[dict[str, Any]]


def _writer(database: Database) -> Callable[[type[Base], Rows], None]:
    """Writes rows of a table through the driver itself: several times faster than statements."""
    write = {"sqlite": _write_sqlite, "postgresql": _copy}[database.dialect]

    def rows(model: type[Base], values: Rows) -> None:
        table: Table = model.__table__  # type: ignore[assignment] # of a mapped class, a Table
        with database.read() as session:
            dialect = session.get_bind().dialect
        bind = [c.type.dialect_impl(dialect).bind_processor(dialect) for c in table.columns]
        raw = (
            [
                convert(value) if convert else value
                for convert, value in zip(bind, each, strict=True)
            ]
            for each in rows_of(table, values)
        )
        write(database, table, raw)

    return rows


def _unchanged(value: Any) -> Any:
    return value


def _write_sqlite(database: Database, table: Table, rows: Iterator[list[Any]]) -> None:
    marks = ", ".join("?" * len(table.columns))
    names = ", ".join(f'"{c.name}"' for c in table.columns)
    with closing(sqlite3.connect(str(database.url.database))) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows)
        connection.commit()


def _copy(database: Database, table: Table, rows: Iterator[list[Any]]) -> None:
    names = ", ".join(f'"{c.name}"' for c in table.columns)
    with (
        psycopg.connect(_plain(database)) as connection,
        connection.cursor().copy(f"COPY {table.name} ({names}) FROM STDIN") as copy,
    ):
        for each in rows:
            copy.write_row(each)


def vacuum(database: Database) -> None:
    """Bring the statistics up to date and, on PostgreSQL, make dead rows' space free for reuse."""
    if database.dialect == "sqlite":
        with closing(sqlite3.connect(str(database.url.database))) as connection:
            connection.execute("ANALYZE")
            connection.commit()
        return
    with psycopg.connect(_plain(database), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _plain(database: Database) -> str:
    url = make_url(database.url).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)
