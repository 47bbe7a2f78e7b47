"""Sessions, engines, the database's clock, and errors that never show the password."""

import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import IntegrityError

from db import batches, jobs, workers
from db.columns import new_id
from db.driver_errors import Busy
from db.errors import Refused, SchemaMismatch, Unreachable
from db.session import Database, clock, insert_new, upsert
from db.tables import Batch, Model, Point


def test_the_clock_is_aware_in_utc_and_finer_than_a_second(each_database):
    with each_database.read() as session:
        readings = [clock(session) for _ in range(50)]
    assert all(at.tzinfo is UTC for at in readings)
    assert readings == sorted(readings)
    assert any(at.microsecond for at in readings)
    assert abs(readings[0] - datetime.now(UTC)) < timedelta(minutes=5)


def test_times_come_back_as_they_were_written(each_database):
    at = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
    batch = Batch(id=new_id(), size=1, created_at=at)
    each_database.transact(lambda session: session.add(batch))
    with each_database.read() as session:
        assert session.get(Batch, batch.id).created_at == at


def test_a_write_that_raises_leaves_nothing(database):
    with pytest.raises(KeyError), database.write() as session:
        add_a_batch_and_raise(session)
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM batches")) == 0


def add_a_batch_and_raise(session):
    batches.add(session, 3)
    raise KeyError("no")


def test_a_read_keeps_nothing(database):
    with database.read() as session:
        batches.add(session, 3)
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM batches")) == 0


def test_rows_can_be_used_after_their_session(database):
    batch = database.transact(lambda session: batches.add(session, 3))
    assert batch.size == 3


def test_counting_up_from_many_threads_loses_nothing(each_database):
    each_database.transact(lambda session: batches.add(session, 0))

    def count_up(session):
        batch = session.query(Batch).with_for_update().one()
        batch.size += 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: each_database.transact(count_up), range(40)))
    with each_database.read() as session:
        assert session.query(Batch).one().size == 40


def test_transact_retries_a_busy_transaction(database):
    runs = []

    def work(session):
        runs.append(session)
        if len(runs) < 3:
            raise Busy("somebody was faster")
        return "done"

    assert database.transact(work) == "done"
    assert len(runs) == 3


def test_a_postgresql_deadlock_is_retried_until_both_are_done(postgresql_database_url):
    database = Database(postgresql_database_url)
    ids = [database.transact(lambda session: batches.add(session, 0)).id for _ in range(2)]
    both_hold_one = Barrier(2)
    tries = []

    def in_order(session, first, second):
        tries.append(first)
        session.get(Batch, first, with_for_update=True).size += 1
        session.flush()
        if len(tries) <= 2:
            both_hold_one.wait(timeout=20)
        session.get(Batch, second, with_for_update=True).size += 1

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(database.transact, lambda s: in_order(s, *ids))
        two = threads.submit(database.transact, lambda s: in_order(s, *ids[::-1]))
        one.result()
        two.result()
    with database.read() as session:
        assert [session.get(Batch, batch_id).size for batch_id in ids] == [2, 2]
    assert len(tries) >= 3  # on a busy machine the loser may lose again
    database.dispose()


def test_a_locked_sqlite_file_is_busy(sqlite_url, monkeypatch):
    monkeypatch.setattr("db.engines.BUSY_TIMEOUT_S", 0.05)
    database = Database(sqlite_url)
    with database.write() as session:
        batches.add(session, 1)
        with pytest.raises(Busy, match="locked"):
            add_a_batch(database)
    database.dispose()


def add_a_batch(database):
    with database.write() as session:
        batches.add(session, 2)


def test_a_sqlite_write_that_reads_first_waits_instead_of_failing(sqlite_url):
    database = Database(sqlite_url)

    def read_then_write():
        with database.write() as session:
            jobs.counts(session)
            batches.add(session, 2)

    with ThreadPoolExecutor(1) as thread:
        with database.write() as session:
            batches.add(session, 1)
            waiting = thread.submit(read_then_write)
            time.sleep(0.2)  # lets the other begin; the outcome is the same if it comes too late
        waiting.result()
    database.dispose()


def test_sqlite_runs_in_wal_mode_with_full_sync_and_foreign_keys(sqlite_url):
    database = Database(sqlite_url)
    with database.read() as session:
        found = [
            session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]
    database.dispose()


def test_rows_that_point_nowhere_are_refused(each_database):
    with pytest.raises(IntegrityError), each_database.write() as session:
        jobs.log(session, "no-such-job", "hello")


def test_a_full_disk_is_reported_in_words(sqlite_url):
    database = Database(sqlite_url)
    with pytest.raises(Unreachable, match="no space left"), database.write() as session:
        fill(session)
    with database.read() as session:
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
    database.dispose()


def fill(session):
    session.execute(text("PRAGMA max_page_count = 1"))
    session.execute(text("CREATE TABLE big AS SELECT zeroblob(10000000)"))


def test_a_database_without_tables_says_what_to_run(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'new' / 'genmill.db'}")
    with pytest.raises(SchemaMismatch, match="genmill db upgrade"), database.read() as session:
        jobs.counts(session)
    database.dispose()


def test_a_file_that_is_not_a_database_is_unreachable(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look at" * 50)
    database = Database(f"sqlite:///{tmp_path / 'notes.txt'}")
    with pytest.raises(Unreachable, match="not a database"), database.read() as session:
        jobs.counts(session)


@pytest.mark.parametrize(
    "url", ["mysql://me:geheim@host/db", "geheim", "sqlite://", "sqlite:///:memory:", "x://geheim"]
)
def test_other_urls_are_refused_without_repeating_a_password(url):
    with pytest.raises(Refused, match="postgresql://user") as refusal:
        Database(url)
    assert "geheim" not in str(refusal.value)


def test_a_server_that_does_not_answer_is_unreachable():
    database = Database("postgresql://me:geheim@127.0.0.1:1/genmill")
    with pytest.raises(Unreachable, match=r"'genmill' at 127\.0\.0\.1:1") as trouble:
        check(database)
    assert "geheim" not in str(trouble.value)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"password": "geheim"}, "password authentication failed"),
        ({"database": "geheimnis"}, "does not exist"),
    ],
)
def test_a_wrong_password_or_database_is_unreachable(postgresql_url, part, says):
    url = make_url(postgresql_url).set(**part)
    database = Database(url.render_as_string(hide_password=False))
    with pytest.raises(Unreachable, match=says) as trouble:
        check(database)
    assert str(url.password) not in str(trouble.value)
    assert "GENMILL_DATABASE_URL" in str(trouble.value)


def check(database):
    with database.read() as session:
        jobs.counts(session)


def test_a_cut_connection_is_replaced(postgresql_database_url):
    database = Database(postgresql_database_url)
    with pytest.raises(Unreachable), database.write() as session:
        session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with database.read() as session:
        assert jobs.counts(session)["queued"] == 0
    database.dispose()


def test_a_forked_child_opens_connections_of_its_own(each_database):
    with each_database.read() as session:
        jobs.counts(session)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            each_database.transact(lambda session: batches.add(session, 7))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    with each_database.read() as session:
        assert session.query(Batch).one().size == 7


def test_insert_new_skips_what_is_there(each_database):
    with each_database.write() as session:
        row = {"id": new_id(), "name": "digits", "family": "gan", "created_at": clock(session)}
        assert insert_new(session, Model, [row]) == 1
        assert insert_new(session, Model, [row | {"id": new_id()}]) == 0
        assert insert_new(session, Model, []) == 0


def test_upsert_replaces_what_is_there(record):
    job_id, _ = record.add()
    row = {"job_id": job_id, "name": "loss", "step": 1, "value": 2.0}
    record.run(upsert, Point, [row])
    record.run(upsert, Point, [row | {"value": 1.5}])
    assert [point.value for point in record.run(jobs.points, job_id)] == [1.5]


def test_the_sqlite_library_supports_returning():
    assert sqlite3.sqlite_version_info >= (3, 35)


def test_postgresql_ends_only_the_writes_of_a_frozen_client(postgresql_database_url):
    database = Database(postgresql_database_url)
    show = text("SHOW idle_in_transaction_session_timeout")
    with database.write() as session:
        assert session.scalar(show) == "30s"
    with database.read() as session:
        assert session.scalar(show) == "0"
    database.dispose()


def test_a_file_error_inside_a_session_is_not_translated(database, tmp_path):
    with pytest.raises(FileNotFoundError), database.read():
        (tmp_path / "missing").read_bytes()


def test_a_value_that_does_not_fit_is_refused(postgresql_database_url):
    database = Database(postgresql_database_url)
    with pytest.raises(Refused, match="too long"):
        database.transact(
            lambda s: workers.start(s, boot_id="b", host="h" * 999, pid=1, device="cpu")
        )
    database.dispose()


@pytest.mark.parametrize("text_of_any_origin", ["a\0b", "a\ud800b"])
def test_characters_that_no_database_stores_are_replaced(each_database, text_of_any_origin):
    job = each_database.transact(
        lambda s: jobs.add(
            s, spec={}, spec_hash="a" * 64, kind="train", model=None, ranges=[(0, 1)]
        )
    )
    each_database.transact(lambda s: jobs.log(s, job.id, text_of_any_origin))
    with each_database.read() as session:
        [line] = jobs.log_lines(session, job.id)
    assert (line.message[0], line.message[-1], len(line.message)) == ("a", "b", 3)


def test_an_at_sign_in_a_password_is_reported_without_showing_the_password():
    with pytest.raises(Refused, match="%40") as refusal:
        Database("postgresql://ann:sec@ret@127.0.0.1/x")
    assert "ret@" not in str(refusal.value)


def test_a_home_that_is_a_file_is_reported_in_words(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unreachable, match="it is not a folder; check GENMILL_HOME"):
        Database(f"sqlite:///{tmp_path}/file/genmill.db")
