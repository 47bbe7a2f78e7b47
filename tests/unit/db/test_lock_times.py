"""No write of ours holds SQLite's only write lock for long, however large a job or a batch is.

A heartbeat waits half a lease for the lock (30 s by default). These are the largest single writes;
everything else goes in pieces (`PIECE_ROWS`, `SHARDS_AT_ONCE`, `REAPED_AT_ONCE`,
`ROWS_AT_ONCE`).
"""

import time
from datetime import timedelta

import pytest
from sqlalchemy import text

from db import batches, chains, datasets, jobs, retention, shards
from db.engines import BUSY_TIMEOUT_S
from db.new_jobs import NewJob, insert_job, insert_piece, pieces
from db.session import Database
from db.tables import Job
from scheduler.submission.sharding import MAX_SHARDS

RANGES = [(place, place + 1) for place in range(MAX_SHARDS)]
LARGEST = NewJob("generate", "{}", "0" * 64, "m", RANGES)

pytestmark = pytest.mark.slow


@pytest.fixture
def held(sqlite_url):
    """Runs a write, and keeps how long the slowest held the lock."""
    database, times = Database(sqlite_url), {}

    def write(name, work):
        began = time.monotonic()
        done = database.transact(work)
        times[name] = max(times.get(name, 0.0), time.monotonic() - began)
        return done

    yield write, times
    database.dispose()


def test_writes_of_the_largest_job(held):
    write, times = held
    job = write("insert", lambda session: insert_job(session, LARGEST))
    running = text(
        "UPDATE shards SET status = 'running', fence = 1, claims = 1, lease_until = '2020-01-01', "
        "started_at = '2020-01-01', owner = '0' WHERE idx % 2 = 0"
    )
    write("none of ours", lambda session: session.execute(running))
    write("none of ours", lambda session: session.execute(text("UPDATE jobs SET status='running'")))
    write("reap", shards.reap)
    write("cancel", lambda session: jobs.cancel(session, job.id))
    old = write("read", lambda session: session.get(Job, job.id))
    again = LARGEST._replace(retry_of=job.id)
    write("retry", lambda session: chains.insert_retry(session, old, again))
    for _ in range(3):
        write("prune", lambda session: retention.take_step(session, "history", keep=timedelta(0)))
    waiting = NewJob("generate", "{}", "0" * 64, "m", (), after_id=job.id)
    last = write("wait", lambda session: insert_job(session, waiting))
    write("release", lambda session: chains.release(session, last.id, LARGEST))
    del times["none of ours"]
    assert max(times.values()) < BUSY_TIMEOUT_S / 2, times


def test_writes_of_a_large_batch(held):
    write, times = held
    many = (NewJob("generate", "{}", "0" * 64, "m", [(0, 1)]) for _ in range(100_000))
    batch = write("add", lambda session: batches.add(session, 100_002))
    for piece in pieces(many, batch_id=batch.id):
        write("insert", lambda session, piece=piece: insert_piece(session, piece))
    for piece in pieces([LARGEST, LARGEST], batch_id=batch.id):
        write("insert", lambda session, piece=piece: insert_piece(session, piece))
    data = {"name": "d", "kind": "image", "manifest_key": "k", "manifest_sha256": "0" * 64}
    write("dataset", lambda session: datasets.add_version(session, **data, summary={}))
    write("dataset", lambda session: datasets.remove(session, "d"))
    write("complete", lambda session: batches.complete(session, batch.id))
    undone = text("UPDATE batches SET complete_at = NULL")
    write("undo", lambda session: session.execute(undone))
    for _ in range(60):
        write("delete", lambda session: batches.delete_some(session, batch.id))
    assert max(times.values()) < BUSY_TIMEOUT_S / 2, times
