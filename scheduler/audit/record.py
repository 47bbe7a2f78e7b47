"""The record as it is at one moment, read job by job and a page at a time.

Only the tables' names and types are Genmill's: the statements are written here.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, or_, select, text

from db.errors import BadRecord
from db.tables import Base
from scheduler.audit.history import Row, put_together
from scheduler.audit.readable import readable
from scheduler.audit.violations import Violation

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


class Unreadable(NamedTuple):
    """A job or shard that is not checked: a row of it, or of what belongs to it, is damaged."""

    what: str
    job_id: str
    error: BadRecord

    @property
    def violation(self) -> Violation:
        """The violation that this is."""
        return Violation(f"{self.what} was not checked: {self.error.message}")


@dataclass
class Page:
    """Some jobs, in the order of their ids, and their shards, read as the caller iterates."""

    jobs: dict[str, JobView]
    unreadable: list[Unreadable]  # jobs
    shards: Iterator[ShardView | Unreadable] = field(repr=False)


def clock(connection: Connection) -> datetime:
    """The database's time, no earlier than anything in the snapshot that this begins."""
    connection.execute(text("SELECT 1 FROM alembic_version"))
    now = connection.scalar(text(CLOCK[connection.dialect.name]))
    found = datetime.fromisoformat(now) if isinstance(now, str) else now
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def pages(connection: Connection) -> Iterator[Page]:
    """Every job and shard on record; read the shards of a page before the next page."""
    jobs = TABLES["jobs"]
    deleted = _history_deleted(connection)
    last = ""
    while ids := connection.scalars(
        select(jobs.c.id).where(jobs.c.id > last).order_by(jobs.c.id).limit(JOBS_AT_ONCE)
    ).all():
        last = ids[-1]
        views, unreadable = dict[str, JobView](), list[Unreadable]()
        for some, found in readable(partial(_job_views, connection, deleted), ids):
            if isinstance(found, BadRecord):
                unreadable.append(Unreadable(f"job {some[0]}", some[0], found))
            else:
                views |= found
        yield Page(views, unreadable, _shards(connection, views))


def _job_views(
    connection: Connection, deleted: tuple[datetime, str] | None, ids: Sequence[str]
) -> dict[str, JobView]:
    found = sorted(_of(connection, "jobs", "id", ids), key=lambda row: row["id"])
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


def _shards(
    connection: Connection, views: Mapping[str, JobView]
) -> Iterator[ShardView | Unreadable]:
    if not views:
        return
    table, job_ids, last = TABLES["shards"], [*views], ("", -1)
    order = (table.c.job_id, table.c.idx)
    within = table.c.job_id.between(job_ids[0], job_ids[-1])
    while True:
        beyond = or_(order[0] > last[0], and_(order[0] == last[0], order[1] > last[1]))
        places = select(table.c.id, *order).where(within, beyond).order_by(*order)
        found = connection.execute(places.limit(SHARDS_AT_ONCE)).all()
        yield from _readable_shards(
            connection, views, {row.id: row.job_id for row in found if row.job_id in views}
        )
        if len(found) < SHARDS_AT_ONCE:
            return
        last = (found[-1].job_id, found[-1].idx)


def _readable_shards(
    connection: Connection, views: Mapping[str, JobView], jobs: Mapping[str, str]
) -> Iterator[ShardView | Unreadable]:
    for ids, found in readable(partial(_shard_views, connection, views), [*jobs]):
        if isinstance(found, BadRecord):
            yield Unreadable(f"shard {ids[0]} of job {jobs[ids[0]]}", jobs[ids[0]], found)
        else:
            yield from found


def _shard_views(
    connection: Connection, views: Mapping[str, JobView], ids: Sequence[str]
) -> list[ShardView]:
    rows = {row["id"]: row for row in _of(connection, "shards", "id", ids)}
    found = [rows[each] for each in ids]
    attempts = grouped(
        put_together(_of(connection, "attempts", "shard_id", ids), found), "shard_id"
    )
    of_page = TABLES["transitions"].c.shard_id.in_(ids)
    job_ids = _named(found, "job_id")
    moves = grouped(_of(connection, "transitions", "job_id", job_ids, of_page), "shard_id")
    made = grouped(_of(connection, "artifacts", "shard_id", ids), "shard_id")
    kept = grouped(_of(connection, "checkpoints", "shard_id", ids), "shard_id")
    return [
        ShardView(
            views[row["job_id"]].row,
            row,
            attempts[row["id"]],
            moves[row["id"]],
            sorted(made[row["id"]], key=lambda each: each["name"]),
            kept[row["id"]],
        )
        for row in found
    ]


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
    rows = connection.execute(select(*columns).where(table.c[column].in_(ids), *more)).mappings()
    return [dict(row) for row in rows]


def _named(rows: Iterable[Row], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows if row[column]))
