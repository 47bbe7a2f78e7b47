"""Revision 0004 keeps every row of a database that was made before it."""

import pytest
from alembic import command
from sqlalchemy import text

from db import batches, jobs
from db.columns import new_id
from tests.unit.db.old_revisions import AT, migrate


@pytest.fixture
def old(unmigrated):
    """A database at the first revision."""
    migrate(unmigrated, "0001")
    return unmigrated


def add_rows(database):
    """A batch of one job with a shard that has moved, and a job that retries it."""
    batch, job, shard, retry = (new_id() for _ in range(4))
    common = {"at": AT, "digest": "0" * 64, "batch": batch, "job": job, "shard": shard}
    with database.write() as session:
        for statement in (
            "INSERT INTO batches (id, size, created_at) VALUES (:batch, 1, :at)",
            "INSERT INTO jobs (id, kind, spec, spec_hash, status, priority, batch_id, progress, "
            "created_at) VALUES (:job, 'train', '{}', :digest, 'failed', 0, :batch, '{}', :at)",
            "INSERT INTO jobs (id, kind, spec, spec_hash, status, priority, retry_of, progress, "
            "created_at) VALUES (:retry, 'train', '{}', :digest, 'queued', 0, :job, '{}', :at)",
            "INSERT INTO shards (id, job_id, idx, start, stop, status, fence, heartbeat_seq, "
            "claims, failures, releases, not_before, dispatch_no) "
            "VALUES (:shard, :job, 0, 0, 1, 'failed', 1, 0, 1, 1, 0, :at, 1)",
            "INSERT INTO transitions (id, job_id, shard_id, at, old, new) "
            "VALUES (:id, :job, :shard, :at, 'queued', 'running')",
        ):
            session.execute(text(statement), common | {"id": new_id(), "retry": retry})
    return batch, job, retry


def test_batches_on_record_are_complete_after_the_upgrade(old):
    batch, job, retry = add_rows(old)
    migrate(old, "head")
    with old.read() as session:
        assert batches.get(session, batch).complete_at == batches.get(session, batch).created_at
        assert {found.id for found in jobs.listing(session)} == {job, retry}
        assert jobs.get(session, retry).retry_of == job
        enqueued, moved = jobs.transitions(session, job)
        assert (enqueued.new, enqueued.shard_id) == ("queued", None)
        assert (moved.old, moved.new, moved.shard_id is None) == ("queued", "running", False)


def test_the_migration_can_be_undone(old):
    batch, *_ = add_rows(old)
    migrate(old, "0004")
    migrate(old, "0003", command.downgrade)
    with old.read() as session:
        assert session.scalar(text("SELECT size FROM batches WHERE id = :id"), {"id": batch}) == 1
