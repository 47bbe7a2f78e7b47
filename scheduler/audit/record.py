"""The record as it is at one moment, read job by job and a page at a time.

Only the tables' names and types are Genmill's: the statements are written here.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, or_, select, text

from db.tables import Base
from scheduler.audit.history import Row, put_together

JOBS_AT_ONCE = 500
SHARDS_AT_ONCE = 1000
FINAL = {"succeeded", "failed", "cancelled"}
TABLES = Base.metadata.tables
CLOCK = {
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
    "postgresql": "SELECT clock_timestamp()",
}


@dataclass
class ShardView:
    """A shard with all that belongs to it, each in order: by fence, time, name and step."""

    job: Row
    row: Row
    attempts: list[Row]  # the one on the shard's own row included
    transitions: list[Row]
    artifacts: list[Row]
    checkpoints: list[Row]

    @property
    def id(self) -> str:
        """The shard's id."""
        return str(self.row["id"])


@dataclass
class JobView:
    """A job without its shards: its moves, its model versions, and the job before it."""

    row: Row
    before: Row | None
    transitions: list[Row]
    versions: list[Row]
    has_history: bool = True  # not deleted by retention

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.row["id"])


@dataclass
class Page:
    """Some jobs, in the order of their ids, and their shards, read as the caller iterates."""

    jobs: dict[str, JobView]
    shards: Iterator[ShardView] = field(repr=False)


def clock(connection: Connection) -> datetime:
    """The database's time, no earlier than anything in the snapshot that this begins."""
    connection.execute(text("SELECT 1 FROM alembic_version"))
    now = connection.scalar(text(CLOCK[connection.dialect.name]))
    found = datetime.fromisoformat(now) if isinstance(now, str) else now
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def pages(connection: Connection) -> Iterator[Page]:
    """Every job and shard on record; read the shards of a page before the next page."""
    jobs = TABLES["jobs"]
    columns = [column for column in jobs.columns if column.name != "spec"]
    deleted = _history_deleted(connection)
    last = ""
    while found := _rows(
        connection, select(*columns).where(jobs.c.id > last).order_by(jobs.c.id), JOBS_AT_ONCE
    ):
        last = found[-1]["id"]
        views = _job_views(connection, found, deleted)
        yield Page(views, _shards(connection, views))


def _job_views(
    connection: Connection, found: Sequence[Row], deleted: tuple[datetime, str] | None
) -> dict[str, JobView]:
    ids = [row["id"] for row in found]
    before = {row["id"]: row for row in _of(connection, "jobs", "id", _named(found, "after_id"))}
    own = and_(TABLES["transitions"].c.shard_id.is_(None))
    moves = grouped(_of(connection, "transitions", "job_id", ids, own), "job_id")
    versions = grouped(_of(connection, "model_versions", "job_id", ids), "job_id")
    return {
        row["id"]: JobView(
            row,
            before.get(row["after_id"]),
            moves[row["id"]],
            versions[row["id"]],
            has_history=deleted is None
            or row["finished_at"] is None
            or (row["finished_at"], row["id"]) > deleted,
        )
        for row in found
    }


def _shards(connection: Connection, views: Mapping[str, JobView]) -> Iterator[ShardView]:
    table = TABLES["shards"]
    ids, last = list(views), ("", -1)
    while True:
        beyond = or_(
            table.c.job_id > last[0], and_(table.c.job_id == last[0], table.c.idx > last[1])
        )
        statement = select(table).where(table.c.job_id.between(ids[0], ids[-1]), beyond)
        found = _rows(connection, statement.order_by(table.c.job_id, table.c.idx), SHARDS_AT_ONCE)
        known = [row for row in found if row["job_id"] in views]  # `reference_checks` tells others
        yield from _shard_views(connection, views, known)
        if len(found) < SHARDS_AT_ONCE:
            return
        last = (found[-1]["job_id"], found[-1]["idx"])


def _shard_views(
    connection: Connection, views: Mapping[str, JobView], found: Sequence[Row]
) -> Iterator[ShardView]:
    ids = [row["id"] for row in found]
    attempts = grouped(
        put_together(_of(connection, "attempts", "shard_id", ids), found), "shard_id"
    )
    of_page = TABLES["transitions"].c.shard_id.in_(ids)
    job_ids = _named(found, "job_id")
    moves = grouped(_of(connection, "transitions", "job_id", job_ids, of_page), "shard_id")
    made = grouped(_of(connection, "artifacts", "shard_id", ids), "shard_id")
    kept = grouped(_of(connection, "checkpoints", "shard_id", ids), "shard_id")
    for row in found:
        key = row["id"]
        artifacts = sorted(made[key], key=lambda each: each["name"])
        job = views[row["job_id"]].row
        yield ShardView(job, row, attempts[key], moves[key], artifacts, kept[key])


def grouped(rows: Iterable[Row], column: str) -> dict[str, list[Row]]:
    """The rows by their value in `column`; an empty list for any other value."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return groups


def _history_deleted(connection: Connection) -> tuple[datetime, str] | None:
    """Up to which finished job retention has deleted attempts and transitions."""
    table = TABLES["retention"]
    found = connection.execute(select(table).where(table.c.what == "history")).mappings().first()
    return None if found is None else (found["finished_at"], found["job_id"])


def _of(
    connection: Connection, name: str, column: str, ids: Sequence[str], *more: Any
) -> list[Row]:
    table = TABLES[name]
    if not ids:
        return []
    columns = [each for each in table.columns if each.name != "spec"]
    return _rows(connection, select(*columns).where(table.c[column].in_(ids), *more))


def _rows(connection: Connection, statement: Any, limit: int | None = None) -> list[Row]:
    rows = connection.execute(statement.limit(limit)).mappings()
    return [dict(row) for row in rows]


def _named(rows: Iterable[Row], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows if row[column]))
