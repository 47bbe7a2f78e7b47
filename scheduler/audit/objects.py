"""Every object that the record names, a page at a time, with the digests that its bytes must have.

A pack is one object whose parts are named by several rows. Reading goes on for long, so each page
is a snapshot of its own: what retention deletes meanwhile is looked up again before it is missed.
"""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, exists, or_, select

from scheduler.audit.history import Row
from scheduler.audit.record import TABLES

PAGE = 200
ENTRY = struct.Struct("<QI32s")  # of an index: offset, size, SHA-256

Snapshot = Callable[[], AbstractContextManager[Connection]]
Read = Callable[[str], bytes | None]  # an object's bytes; None where there is none


@dataclass(frozen=True)
class Part:
    """Bytes `offset` to `offset + size` of an object, and the row that names them."""

    table: str
    id: str
    offset: int
    size: int
    sha256: str
    samples: range | None = None  # those whose index describes these bytes
    index: bytes | None = None  # inside the row
    index_sha256: str | None = None  # of one that lies behind the part in its pack


@dataclass(frozen=True)
class Named:
    """An object that must be in the store. Without `sha256`, it is a pack, or its parts tell."""

    key: str
    table: str
    id: str
    sha256: str | None = None
    size: int | None = None
    parts: tuple[Part, ...] = ()


def named_objects(snapshot: Snapshot, read: Read, *, manifests: bool = True) -> Iterator[Named]:
    """Every object on record; those shared by many rows come several times.

    `read` reads the manifests of dataset versions, which name further objects. Without `manifests`,
    those of jobs are left out, but for the ones in packs.
    """
    return chain(
        _artifacts(snapshot),
        _packs(snapshot),
        _manifests(snapshot) if manifests else (),
        _prompts(snapshot),
        _versions(snapshot),
        _checkpoints(snapshot),
        _evaluations(snapshot),
        _judges(snapshot),
        _datasets(snapshot, read),
    )


def is_named(snapshot: Snapshot, named: Named) -> bool:
    """Whether the record names the object still, which retention may have deleted since."""
    if named.table == "checkpoints":
        shard_id, _, step = named.id.partition(":")
        table = TABLES["checkpoints"]
        where = and_(table.c.shard_id == shard_id, table.c.step == int(step), ~table.c.bad)
    else:
        table = TABLES[named.table]
        where = table.c.id == named.id
        if "removed_at" in table.columns:
            where = and_(where, _is_kept(table))
    with snapshot() as connection:
        return bool(connection.scalar(select(exists().where(where))))


def pack_parts(connection: Connection, pack: int) -> tuple[Part, ...]:
    """The parts of a pack that are on record, in no order."""
    artifacts, jobs = TABLES["artifacts"], TABLES["jobs"]
    stored = _with_shards().where(artifacts.c.pack == pack, artifacts.c.removed_at.is_(None))
    names = ("id", "manifest_offset", "manifest_size", "manifest_sha256")
    manifests = select(*(jobs.c[name] for name in names))
    found = connection.execute(manifests.where(jobs.c.manifest_pack == pack)).all()
    return (
        *(_part(row) for row in connection.execute(stored).mappings()),
        *(Part("jobs", job, offset, size, sha256) for job, offset, size, sha256 in found),
    )


def pack_key(number: int) -> str:
    """The key of the pack with this number."""
    return f"packs/{number:016x}"


def blob_key(job_id: str, sha256: str) -> str:
    """The key of an object of a job's own."""
    return f"jobs/{job_id}/blobs/{sha256}"


def _artifacts(snapshot: Snapshot) -> Iterator[Named]:
    table = TABLES["artifacts"]
    own = _with_shards().where(table.c.pack.is_(None), table.c.removed_at.is_(None))
    for row in _rows(snapshot, own, table):
        part = _part(row)
        key = row["key"] or blob_key(row["job_id"], row["sha256"])
        yield Named(key, "artifacts", row["id"], row["sha256"], row["size"], (part,))
        if row["index_sha256"]:
            size = (row["stop"] - row["start"]) * ENTRY.size
            key = blob_key(row["job_id"], row["index_sha256"])
            yield Named(key, "artifacts", row["id"], row["index_sha256"], size)


def _packs(snapshot: Snapshot) -> Iterator[Named]:
    artifacts, jobs = TABLES["artifacts"], TABLES["jobs"]
    kept = and_(artifacts.c.removed_at.is_(None), artifacts.c.pack.is_not(None))
    beside = select(artifacts.c.id).where(artifacts.c.pack == jobs.c.manifest_pack, kept)
    only_manifests = and_(jobs.c.manifest_pack.is_not(None), ~beside.exists())
    for column, where in ((artifacts.c.pack, kept), (jobs.c.manifest_pack, only_manifests)):
        last = -1
        while True:
            numbers = select(column).where(where, column > last).distinct().order_by(column)
            with snapshot() as connection:
                found = connection.scalars(numbers.limit(PAGE)).all()
                parts = {number: pack_parts(connection, number) for number in found}
            for number, some in parts.items():
                if some:
                    yield Named(pack_key(number), some[0].table, some[0].id, parts=some)
            if len(found) < PAGE:
                break
            last = found[-1]


def _manifests(snapshot: Snapshot) -> Iterator[Named]:
    table = TABLES["jobs"]
    columns = (table.c.id, table.c.manifest_key, table.c.manifest_sha256)
    where = table.c.manifest_key.is_not(None)
    for row in _rows(snapshot, select(*columns).where(where), table):
        yield Named(row["manifest_key"], "jobs", row["id"], row["manifest_sha256"])


def _prompts(snapshot: Snapshot) -> Iterator[Named]:
    table = TABLES["jobs"]
    where = table.c.prompts_sha256.is_not(None)
    for row in _rows(snapshot, select(table.c.id, table.c.prompts_sha256).where(where), table):
        sha256 = row["prompts_sha256"]
        yield Named(f"prompts/blobs/{sha256}", "jobs", row["id"], sha256)


def _versions(snapshot: Snapshot) -> Iterator[Named]:
    table = TABLES["model_versions"]
    for row in _rows(snapshot, select(table.c.id, table.c.files), table):
        for file in row["files"].values():
            size = file.get("size")
            yield Named(file["key"], "model_versions", row["id"], file["sha256"], size)


def _checkpoints(snapshot: Snapshot) -> Iterator[Named]:
    table, last = TABLES["checkpoints"], ("", -1)
    while True:
        same = and_(table.c.shard_id == last[0], table.c.step > last[1])
        good = select(table).where(~table.c.bad, or_(table.c.shard_id > last[0], same))
        with snapshot() as connection:
            ordered = good.order_by(table.c.shard_id, table.c.step).limit(PAGE)
            found = connection.execute(ordered).mappings().all()
        for row in found:
            place = f"{row['shard_id']}:{row['step']}"
            yield Named(row["key"], "checkpoints", place, row["sha256"], row["size"])
        if len(found) < PAGE:
            return
        last = (found[-1]["shard_id"], found[-1]["step"])


def _evaluations(snapshot: Snapshot) -> Iterator[Named]:
    table = TABLES["evaluations"]
    columns = (table.c.id, table.c.items_key, table.c.items_sha256)
    for row in _rows(snapshot, select(*columns), table):
        yield Named(row["items_key"], "evaluations", row["id"], row["items_sha256"])


def _judges(snapshot: Snapshot) -> Iterator[Named]:
    table = TABLES["judges"]
    for row in _rows(snapshot, select(table.c.id, table.c.key, table.c.sha256), table):
        yield Named(row["key"], "judges", row["id"], row["sha256"])


def _datasets(snapshot: Snapshot, read: Read) -> Iterator[Named]:
    table = TABLES["dataset_versions"]
    columns = (table.c.id, table.c.manifest_key, table.c.manifest_sha256)
    for row in _rows(snapshot, select(*columns).where(_is_kept(table)), table):
        place = ("dataset_versions", row["id"])
        yield Named(row["manifest_key"], *place, row["manifest_sha256"])
        for entry in _entries(read(row["manifest_key"])):
            yield Named(f"datasets/blobs/{entry['sha256']}", *place, entry["sha256"])


def _is_kept(table: Table) -> ColumnElement[bool]:
    """Whether a row is not removed, or only hidden: then its objects are kept."""
    graves = TABLES["tombstones"]
    hidden = select(graves.c.id).where(graves.c.id == table.c.id, graves.c.kept)
    return or_(table.c.removed_at.is_(None), hidden.exists())


def _entries(manifest: bytes | None) -> Sequence[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(manifest or b"{}").get("objects", [])
    except (ValueError, AttributeError):
        return []  # damaged: its own digest tells
    return [entry for entry in found if isinstance(entry.get("sha256"), str)]


def _with_shards() -> Select[Any]:
    artifacts, shards = TABLES["artifacts"], TABLES["shards"]
    columns = [*artifacts.columns, shards.c.start, shards.c.stop]
    return select(*columns).join(shards, shards.c.id == artifacts.c.shard_id)


def _part(row: Row) -> Part:
    has_index = row["index_data"] is not None or row["index_sha256"] is not None
    return Part(
        "artifacts",
        row["id"],
        row["pack_offset"] or 0,
        row["size"],
        row["sha256"],
        range(row["start"], row["stop"]) if has_index else None,
        row["index_data"],
        row["index_sha256"],
    )


def _rows(snapshot: Snapshot, statement: Select[Any], table: Table) -> Iterator[Row]:
    """The rows of a statement about a table, in the order of its ids."""
    last = ""
    while True:
        page = statement.where(table.c.id > last).order_by(table.c.id).limit(PAGE)
        with snapshot() as connection:
            found = connection.execute(page).mappings().all()
        yield from found
        if len(found) < PAGE:
            return
        last = found[-1]["id"]
