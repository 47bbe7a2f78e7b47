"""What keeps a database from cleaning up is found, with a remedy."""

import time
from functools import partial

import pytest
from sqlalchemy import text

from db import jobs, upkeep, workers
from db.session import Database


@pytest.fixture
def postgresql(postgresql_database_url):
    database = Database(postgresql_database_url)
    yield database
    database.dispose()


def problems(database: Database) -> list[upkeep.Problem]:
    with database.read() as session:
        return upkeep.problems(session)


def test_a_database_at_rest_has_no_problems(each_database):
    assert problems(each_database) == []


def test_a_transaction_that_stays_open_is_named_with_how_to_end_it(postgresql, monkeypatch):
    monkeypatch.setattr(upkeep, "MAX_AGE_S", 0)
    with postgresql.read() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        [found] = problems(postgresql)
    assert "idle in transaction" in found.found
    assert f"pg_terminate_backend({pid})" in found.remedy


def test_dead_rows_beyond_the_bound_are_counted(postgresql, monkeypatch):
    monkeypatch.setattr(upkeep, "MAX_DEAD_ROWS", 10)
    for number in range(20):
        boot = {"boot_id": str(number), "host": "h", "pid": 1, "device": "cpu"}
        postgresql.transact(partial(workers.start, **boot))
    with postgresql.write() as session:
        session.execute(text("DELETE FROM workers"))
        session.execute(text("SELECT pg_stat_force_next_flush()"))
    deadline = time.monotonic() + 30
    while not (found := problems(postgresql)) and time.monotonic() < deadline:
        time.sleep(0.1)  # statistics come a moment later
    assert [each.remedy.partition("run ")[2] for each in found] == ["VACUUM workers"]


def test_a_table_without_autovacuum_is_named(postgresql):
    change = "ALTER TABLE shards {} (autovacuum_enabled{})"
    postgresql.transact(lambda s: s.execute(text(change.format("SET", " = false"))))
    try:
        [found] = problems(postgresql)
    finally:
        postgresql.transact(lambda s: s.execute(text(change.format("RESET", ""))))
    assert found.found == "autovacuum is off for the table shards"


def test_the_hot_tables_are_set_up_for_many_updates(postgresql):
    with postgresql.read() as session:
        rows = session.execute(
            text("SELECT relname, reloptions FROM pg_class WHERE relname = ANY(:names)"),
            {"names": list(upkeep.HOT)},
        ).all()
    assert {name for name, _ in rows} == {*upkeep.HOT}
    for _, options in rows:
        assert any(option.startswith("fillfactor=") for option in options)
        assert "autovacuum_vacuum_scale_factor=0.02" in options


def test_a_wal_that_a_reader_holds_open_is_reported(sqlite_url, monkeypatch):
    monkeypatch.setattr(upkeep, "MAX_WAL_BYTES", 40 * 4096)
    database, reader = Database(sqlite_url), Database(sqlite_url)
    with reader.read() as session:
        jobs.counts(session)  # its snapshot is what the WAL is kept for
        for _ in range(60):
            database.transact(lambda s: jobs.add_batch(s, 1))
        [found] = problems(database)
    assert "WAL" in found.found
    assert "fuser" in found.remedy
    assert problems(database) == []
    database.dispose()
    reader.dispose()
