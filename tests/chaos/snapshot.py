"""What the record, the store and the broker hold at one moment, read without Genmill's own readers.

Only the tables' names and types are Genmill's: SQL, files and messages are read here.
"""

import base64
import binascii
import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import redis
from botocore.exceptions import ClientError
from sqlalchemy import Connection, create_engine, make_url, select, text

from db import tables
from tests.attempts import put_together

Row = Mapping[str, Any]
ENTRY = struct.Struct("<QI32s")  # of an index: offset, size, SHA-256
BEGIN = {"sqlite": "BEGIN", "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}
CLOCK = {
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
    "postgresql": "SELECT clock_timestamp()",
}


@dataclass(frozen=True)
class Snapshot:
    """The record at one moment; `now` is the database's clock."""

    now: datetime
    jobs: list[Row]
    shards: list[Row]
    attempts: list[Row]  # those on their shards' own rows included, in the order of their fences
    artifacts: list[Row]
    checkpoints: list[Row]
    transitions: list[Row]
    model_versions: list[Row]

    @cached_property
    def job(self) -> dict[str, Row]:
        return {row["id"]: row for row in self.jobs}

    @cached_property
    def shard(self) -> dict[str, Row]:
        return {row["id"]: row for row in self.shards}

    @cached_property
    def shards_of(self) -> dict[str, list[Row]]:
        """By job, in their order."""
        return grouped(sorted(self.shards, key=lambda row: row["idx"]), "job_id")

    @cached_property
    def attempts_at(self) -> dict[str, list[Row]]:
        """By shard, in the order of their fences."""
        return grouped(self.attempts, "shard_id")

    @cached_property
    def transitions_of(self) -> dict[str, list[Row]]:
        """By shard, or by job where they are the job's own."""
        rows = [{**row, "of": row["shard_id"] or row["job_id"]} for row in self.transitions]
        return grouped(rows, "of")

    @cached_property
    def artifacts_of(self) -> dict[str, list[Row]]:
        """By shard, in the order of their names."""
        return grouped(sorted(self.artifacts, key=lambda row: row["name"]), "shard_id")


def read_record(url: str) -> Snapshot:
    """Every table that the auditor needs, read in one transaction."""
    driven = make_url(url)
    kind = driven.get_backend_name()
    if kind == "postgresql":
        driven = driven.set(drivername="postgresql+psycopg")
    engine = create_engine(driven, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(BEGIN[kind]))
            rows = {
                name: _rows(connection, name) for name in Snapshot.__annotations__ if name != "now"
            }
            rows["artifacts"] = [{**row, "key": _key(row)} for row in rows["artifacts"]]
            rows["attempts"] = put_together(rows["attempts"], rows["shards"])
            now = _aware(connection.scalar(text(CLOCK[kind])))
            connection.execute(text("ROLLBACK"))
    finally:
        engine.dispose()
    return Snapshot(now=now, **rows)


def grouped(rows: Iterable[Row], column: str) -> dict[str, list[Row]]:
    """The rows by their value in `column`; an empty list for any other value."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return groups


class Objects:
    """Reads whole objects from a store."""

    def __init__(self, url: str, endpoint_url: str | None) -> None:
        self._parts = urlsplit(url)
        self._s3 = boto3.client("s3", endpoint_url=endpoint_url) if url.startswith("s3") else None

    def read_artifact(self, row: Row) -> bytes | None:
        """An artifact's bytes, which may lie in a pack; None where there is none."""
        data = self.read(row["key"])
        if data is None or row["pack"] is None:
            return data
        return data[row["pack_offset"] : row["pack_offset"] + row["size"]]

    def read_index(self, row: Row, count: int) -> bytes:
        """The index of an artifact's `count` samples, wherever it is."""
        if not row["index_sha256"]:
            return row["index_data"] or b""
        if row["pack"] is None:
            return self.read(_blob_key(row, "index_sha256")) or b""
        at = row["pack_offset"] + row["size"]
        return (self.read(row["key"]) or b"")[at : at + count * ENTRY.size]

    def read_manifest(self, job: Row) -> bytes | None:
        """A job's manifest, which may lie in a pack; None where there is none."""
        if job["manifest_pack"] is None:
            return self.read(job["manifest_key"])
        data, at = self.read(_pack_key(job["manifest_pack"])), job["manifest_offset"]
        return data and data[at : at + job["manifest_size"]]

    def read(self, key: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        if self._s3 is None:
            path = Path(unquote(self._parts.path)) / key
            return path.read_bytes() if path.is_file() else None
        try:
            whole = f"{self._parts.path}/{key}".lstrip("/")
            data: bytes = self._s3.get_object(Bucket=self._parts.netloc, Key=whole)["Body"].read()
        except ClientError:
            return None
        return data


def read_members(s: Snapshot, objects: Objects) -> dict[str, list[Row]]:
    """By artifact, each sample's number, offset, size and digest, in the order of the index."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in s.artifacts:
        shard = s.shard[row["shard_id"]]
        data = objects.read_index(row, shard["stop"] - shard["start"])
        entries = ENTRY.iter_unpack(data[: len(data) // ENTRY.size * ENTRY.size])
        for sample, entry in enumerate(entries, shard["start"]):
            offset, size, digest = entry
            place = {"sample": sample, "offset": offset, "size": size, "sha256": digest.hex()}
            found[row["id"]].append(place)
    return found


def read_doorbells(url: str) -> Iterator[tuple[str, Any]]:
    """Content type and body of each message in Redis: waiting, or taken and not acknowledged."""
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        waiting = client.lrange("genmill:genmill", 0, -1)
        taken = client.hvals("genmill:unacked")
    for message in [*map(_parsed, waiting), *((_parsed(value) or [None])[0] for value in taken)]:
        body = message.get("body") if isinstance(message, dict) else None
        if isinstance(body, str):
            with suppress(binascii.Error):
                yield message["content-type"], _parsed(base64.b64decode(body))


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None  # garbage


def _rows(connection: Connection, name: str) -> list[Row]:
    table = tables.Base.metadata.tables[name]
    return [row._mapping for row in connection.execute(select(table))]


def _key(artifact: Row) -> str:
    packed = artifact["pack"] is not None and _pack_key(artifact["pack"])
    return packed or artifact["key"] or _blob_key(artifact, "sha256")


def _pack_key(number: int) -> str:
    return f"packs/{number:016x}"


def _blob_key(artifact: Row, digest: str) -> str:
    return f"jobs/{artifact['job_id']}/blobs/{artifact[digest]}"


def _aware(value: Any) -> datetime:
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
