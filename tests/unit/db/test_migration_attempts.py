"""Revision 0007 moves attempts onto their shards' rows; nothing of what they say is lost."""

import pytest
from alembic import command
from sqlalchemy import text

from db import jobs, shards
from tests.attempts import attempts_at
from tests.unit.db.old_revisions import add_shard, insert, migrate, upgrade

START, END = "2026-01-02 03:04:05.000000+00:00", "2026-01-02 03:04:06.000000+00:00"
OPEN = {"status": "running", "lease_until": END}
SHARDS = {
    "won": {"status": "succeeded", "fence": 2, "claims": 2, "releases": 1, "report": '{"done": 4}'},
    "held": {**OPEN, "fence": 1, "claims": 1, "owner": "ann"},
    "lost": {"status": "failed", "fence": 1, "claims": 1, "failures": 1},
    "new": {},
}
ENDED = {
    ("won", 1): ("ann", "released"),
    ("won", 2): ("bob", "succeeded"),
    ("held", 1): ("ann", None),
    ("lost", 1): ("ann", "failed"),
}
NOW_THERE = {
    "won": [(1, "ann", "released", True), (2, "bob", "succeeded", True)],
    "held": [(1, "ann", None, False)],
    "lost": [(1, "ann", "failed", True)],
    "new": [],
}


@pytest.fixture
def database(unmigrated):
    """A database of the revision before, with attempts of every kind."""
    migrate(unmigrated, "0006")
    fill(unmigrated)
    return unmigrated


def fill(database):
    fixed = {"spec": "{}", "spec_hash": "0" * 64, "created_at": START, "priority": 0}
    insert(database, "jobs", id="job", kind="generate", status="running", samples=16, **fixed)
    for idx, (shard_id, columns) in enumerate(SHARDS.items()):
        add_shard(database, shard_id, "job", **{"idx": idx, "group_id": "job", **columns})
    for (shard_id, fence), (worker, outcome) in ENDED.items():
        at = {"started_at": START, "ended_at": END if outcome else None}
        row = {"shard_id": shard_id, "fence": fence, "worker": worker, "outcome": outcome}
        insert(database, "attempts", **row, **at)


def test_every_attempt_is_still_told(database):
    upgrade(database)
    with database.read() as session:
        found = {
            shard.id: [
                (row["fence"], row["worker"], row["outcome"], row["ended_at"] is not None)
                for row in attempts_at(session, shard.id)
            ]
            for shard in jobs.shards_of(session, "job")
        }
        reports = {shard.id: shard.report for shard in jobs.shards_of(session, "job")}
    assert found == NOW_THERE
    assert reports["won"] is None


def test_work_that_was_going_on_is_committed_after_the_upgrade(database):
    upgrade(database)
    with database.read() as session:
        [held] = [each for each in jobs.shards_of(session, "job") if each.id == "held"]
        claim = shards.Claim("held", "job", 1, "ann", 1, 0, 4, "generate", False, None, "job")
        assert shards.outcome(session, claim) is None
        assert held.started_at is not None
    index = shards.NewIndex(range(4), "0" * 64, data=bytes(176))
    made = shards.NewArtifact("samples", "s.tar", "k", "a" * 64, 1, "application/x-tar", index)
    database.transact(lambda session: shards.commit(session, claim, [made]))
    with database.read() as session:
        assert shards.outcome(session, claim) == "succeeded"


def test_downgrading_puts_the_attempts_back(database):
    upgrade(database)
    migrate(database, "0006", command.downgrade)
    with database.read() as session:
        rows = session.execute(text("SELECT shard_id, fence, worker, outcome FROM attempts"))
        assert {(row[0], row[1]): (row[2], row[3]) for row in rows} == ENDED
