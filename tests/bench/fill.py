"""A large record, made inside the database: a million jobs in about a minute instead of hours.

Rows differ from one another in their ids, ranges and times of creation only. Columns are those of
`db.tables`: each gets the value given here, else its own default.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Table,
    Uuid,
    cast,
    column,
    create_engine,
    func,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.sql.selectable import FromClause

from db.columns import UtcDateTime, first_id, new_id
from db.session import Database
from db.tables import Base, Batch, Job, JobCount, Shard, Worker

SPEC = {"kind": "generate", "model": "digits:1", "count": 1, "seed": 0, "label": None}
TIME_DIGITS = len("00000000-0000")  # with which an id begins
PAST = datetime.now(UTC) - timedelta(hours=1)
WORK_KEY = 7_000_000_001
FINAL = {"succeeded", "failed", "cancelled"}
FAST = {  # nothing here must survive a power cut, and no row refers to one that is missing
    "sqlite": (
        "PRAGMA journal_mode = DELETE",  # out of WAL mode, until the next connection
        "PRAGMA journal_mode = OFF",
        "PRAGMA synchronous = OFF",
        "PRAGMA cache_size = -500000",
    ),
    "postgresql": ("SET session_replication_role = replica", "SET synchronous_commit = off"),
}

N: ColumnElement[int] = column("n", Integer)  # the number of a row, from 0


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


class Ids:
    """Ids of one table, all of one time: their last twelve digits count the rows."""

    def __init__(self, connection: Connection) -> None:
        time = first_id(PAST)[:TIME_DIGITS]
        self.head = time + new_id()[TIME_DIGITS:-12]
        self._dialect = connection.dialect
        self._stored = _stored(connection, self[0])

    def __getitem__(self, number: int) -> str:
        """The id of a row."""
        return f"{self.head}{number:012x}"

    def of(self, number: ColumnElement[int]) -> ColumnElement[Any]:
        """The id of a row as it is stored, as SQL."""
        if self._dialect.name == "postgresql":
            digits = func.concat(self.head, func.lpad(func.to_hex(number), 12, "0"))
            text_only = isinstance(self._stored, str)
            return digits if text_only else func.uuid_send(cast(digits, Uuid(as_uuid=False)))
        if isinstance(self._stored, str):
            return func.printf(f"{self.head}%012x", number)
        return func.id_of(self._stored[:-6], number)


def fill(database: Database, shape: Shape, *, status: str = "queued") -> list[str]:
    """Insert jobs and shards, all in `status`; return the ids of some of the jobs.

    Statistics are brought up to date, as autovacuum does within a minute.
    """
    job, place = _divide(N, shape.shards), N % shape.shards
    size = shape.jobs // max(shape.batches, 1)
    database.dispose()  # or its connections keep SQLite in WAL mode
    with connection(database, *FAST[database.dialect]) as connected:
        batches, jobs, shards = (Ids(connected) for _ in range(3))

        def rows(model: type[Base], count: int, values: Mapping[str, Any]) -> None:
            connected.execute(_insert(model, count, values, database.dialect))

        batch = {"id": batches.of(N), "size": size, "complete_at": PAST}
        rows(Batch, shape.batches, batch)
        batch_id = batches.of(_divide(N, size)) if shape.batches else None
        rows(Job, shape.jobs, _job(shape, status) | {"id": jobs.of(N), "batch_id": batch_id})
        group = batches.of(_divide(job, size)) if shape.batches else jobs.of(job)
        ids = {"id": shards.of(N), "job_id": jobs.of(job), "group_id": group}
        rows(Shard, shape.jobs * shape.shards, _shard(shape, status, place) | ids)
        if database.dialect == "postgresql":  # whose triggers were off
            connected.execute(_count(status, shape.jobs))
    vacuum(database)
    return [jobs[number] for number in range(0, shape.jobs, max(1, shape.jobs // 100))]


def add_worker(database: Database) -> str:
    """Record a live worker boot; return its id."""
    boot_id, now = new_id(), datetime.now(UTC) + timedelta(hours=2)  # live for the whole run
    values = {"boot_id": boot_id, "host": "bench", "pid": 1, "device": "cpu"}
    with connection(database) as connected:
        connected.execute(insert(Worker).values(started_at=now, heartbeat_at=now, **values))
    return boot_id


def vacuum(database: Database) -> None:
    """Bring the statistics up to date and, on PostgreSQL, make dead rows' space free for reuse."""
    statement = {"sqlite": "ANALYZE", "postgresql": "VACUUM ANALYZE"}[database.dialect]
    with connection(database, isolation_level="AUTOCOMMIT") as connected:
        connected.execute(text(statement))


@contextmanager
def connection(
    database: Database, *settings: str, isolation_level: Any = None
) -> Iterator[Connection]:
    """A transaction on a connection of its own, with settings of its own."""
    engine = create_engine(database.url, isolation_level=isolation_level)
    try:
        with engine.begin() as connected:
            for each in settings:
                connected.execute(text(each))
            if connected.dialect.name == "sqlite":
                driver: Any = connected.connection.driver_connection
                driver.create_function("id_of", 2, lambda head, n: head + n.to_bytes(6, "big"))
            yield connected
    finally:
        engine.dispose()


def _stored(connection: Connection, row_id: str) -> Any:
    """An id as the database holds it."""
    kind, dialect = Job.__table__.c.id.type, connection.dialect
    process = kind.dialect_impl(dialect).bind_processor(dialect)
    return process(row_id) if process else row_id


def _job(shape: Shape, status: str) -> dict[str, Any]:
    ended = PAST if status in FINAL else None
    return {
        "kind": "generate",
        "spec": SPEC | {"count": shape.shards * shape.samples},
        "spec_hash": "0" * 64,
        "status": status,
        "model": "digits",
        "samples": shape.shards * shape.samples,
        "finished_at": ended,
        "collected_at": ended,
    }


def _shard(shape: Shape, status: str, idx: ColumnElement[int]) -> dict[str, Any]:
    return {
        "idx": idx,
        "start": idx * shape.samples,
        "stop": (idx + 1) * shape.samples,
        "status": status,
        "urgency": 0,
        "work_key": WORK_KEY,
    }


def _insert(model: type[Base], count: int, given: Mapping[str, Any], dialect: str) -> Any:
    """The statement that inserts `count` rows."""
    table: Table = model.__table__  # type: ignore[assignment] # of a mapped class, a Table
    values = {each.name: _value(each, given) for each in table.columns}
    rows = select(*values.values()).select_from(_series(count, dialect))
    return insert(table).from_select(list(values), rows, include_defaults=False)


def _value(wanted: Any, given: Mapping[str, Any]) -> ColumnElement[Any]:
    """A column's value as SQL. A time that has no default is an hour ago."""
    value = given.get(wanted.name)
    if isinstance(value, ColumnElement):
        return value
    if wanted.name not in given:
        if wanted.default is not None:
            value = wanted.default.arg
        elif not wanted.nullable and isinstance(wanted.type, UtcDateTime):
            value = PAST
    return literal(value, wanted.type)


def _series(count: int, dialect: str) -> FromClause:
    """A table whose column `n` counts from 0."""
    if dialect == "postgresql":
        return func.generate_series(0, count - 1).table_valued("n").render_derived(name="series")
    numbers = select(literal(0).label("n")).where(literal(count) > 0).cte("series", recursive=True)
    return numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < count - 1))


def _divide(number: ColumnElement[int], by: int) -> ColumnElement[int]:
    return number.op("/")(literal(by, Integer))


def _count(status: str, jobs: int) -> Any:
    return insert(JobCount).values(kind="generate", status=status, slot=0, jobs=jobs)
