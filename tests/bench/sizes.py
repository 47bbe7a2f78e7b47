"""Bytes of the database a shard and a sample, everything included: queue, history and results."""

from collections.abc import Iterator
from contextlib import closing
from sqlite3 import connect

from sqlalchemy import text

from db.columns import new_id
from db.session import Database
from tests.bench.bench import Bench
from tests.bench.fill import Shape, fill, vacuum
from tests.bench.measure import Measure, against_limit
from tests.bench.protocol import FleetMember
from tests.bench.records import KINDS, record

BYTES_A_SHARD, BYTES_A_SAMPLE = 600, 2
MANY = 1000  # samples of a large shard
ROUNDS = 10  # vacuums of a run, in place of autovacuum


def sizes(bench: Bench) -> Iterator[Measure]:
    """One job of shards with one sample each, and one of shards with a thousand each.

    Each shard is claimed, renewed once and committed. The two figures follow from the two sizes.
    """
    count = bench.size(10_000, 100)
    for kind in KINDS:
        small = bytes_a_shard(bench, kind, count, samples=1)
        large = bytes_a_shard(bench, kind, max(count // 20, 50), samples=MANY)
        a_sample = (large - small) / (MANY - 1)
        yield against_limit(
            f"database bytes a shard ({kind})", "bytes", small - a_sample, BYTES_A_SHARD
        )
        yield against_limit(
            f"database bytes a sample ({kind})", "bytes", max(a_sample, 0), BYTES_A_SAMPLE
        )


def bytes_a_shard(bench: Bench, kind: str, count: int, *, samples: int) -> float:
    """The growth of a record by a job of `count` shards, from enqueueing to the last commit."""
    with record(bench, kind) as database:
        empty = size_bytes(database)
        fill(database, Shape(jobs=1, shards=count, samples=samples), status="queued")
        member = FleetMember(database, new_id(), lease_s=3600)
        member.start()
        for number in range(count):
            claim = member.claim()
            if claim is None:
                raise RuntimeError(f"no shard is due after {number} of {count}")
            member.renew(claim)
            member.commit(claim)
            if not (number + 1) % (count // ROUNDS):
                vacuum(database)
        return (size_bytes(database) - empty) / count


def size_bytes(database: Database) -> int:
    """Bytes of the tables and their indexes, without pages that are free for reuse."""
    if database.dialect == "sqlite":
        with closing(connect(str(database.url.database))) as connection:
            pages, free, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * size)
    total = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables"
    with database.read() as session:
        return int(session.scalar(text(total)) or 0)
