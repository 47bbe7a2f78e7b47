"""The database is down, busy, read-only or restarted; replies to COMMIT are lost."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from db.errors import Unreachable
from scheduler.dispatch.rounds import run_round
from tests.chaos.proxy import Proxy, proxied
from tests.chaos.scenarios import GENERATE, NAMED, command, start, work_through
from tests.chaos.trial import (
    FOLDER,
    ONE_BY_ONE,
    RING_BOUND_S,
    SERVERS,
    START_S,
    Trial,
)
from tests.forked import changed
from tests.integration.conftest import PATIENCE_S
from tests.servers import PostgreSQL, autocommitting, create_database, own_postgresql

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

READ_ONLY_S = 10.0
RESTARTS = 5


@pytest.fixture
def postgresql() -> Iterator[tuple[PostgreSQL, str]]:
    """A PostgreSQL server of the test's own, and the URL of a migrated database in it."""
    with own_postgresql() as server:
        yield server, create_database(server.url)


@pytest.fixture
def objects(s3) -> dict[str, object]:
    """Settings of a store on S3."""
    return {"store_url": s3.url, "s3_endpoint_url": s3.endpoint_url}


def execute(url: str, *statements: str) -> None:
    with autocommitting(url) as connection:
        for statement in statements:
            connection.execute(text(statement))


def dispatch_for(made: Trial, seconds: float) -> None:
    """Dispatch, as a scheduler would, whatever the database says."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        run_round(made.services)
        time.sleep(0.2)


def nothing_counted(made: Trial) -> None:
    assert [made.counted(job) for job in made.everything()] == [0] * len(made.mine)


def test_a_database_that_goes_away_under_a_working_worker(trial, postgresql, objects) -> None:
    server, url = postgresql
    made = trial("the database down under a worker", {"database_url": url, **objects},
                 bound_s=RING_BOUND_S)  # fmt: skip
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        worker = made.start(job)
        server.stop()
    dispatch_for(made, 3)
    server.start()
    made.inject()
    made.recover()
    assert worker.poll() is None
    nothing_counted(made)


def test_a_database_restarted_five_times_counts_nothing(trial, postgresql, objects) -> None:
    server, url = postgresql
    made = trial("PostgreSQL restarted", {"database_url": url, **objects}, bound_s=RING_BOUND_S)
    worker = made.worker()
    for seed in range(RESTARTS):
        made.generate(40, seed=seed, params=ONE_BY_ONE)
        dispatch_for(made, 1)
        server.stop()
        dispatch_for(made, 0.5)
        server.start()
        made.inject()
    made.recover()
    assert worker.poll() is None
    nothing_counted(made)


def test_a_database_read_only_for_ten_seconds_counts_nothing(trial, postgresql, objects) -> None:
    _, url = postgresql
    made = trial("PostgreSQL read-only for 10 s", {"database_url": url, **objects},
                 bound_s=RING_BOUND_S)  # fmt: skip
    job = made.generate(50, params=ONE_BY_ONE)
    worker = made.worker()
    made.wait("a running job", lambda: made.job(job.id).status == "running")
    execute(url, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    dispatch_for(made, READ_ONLY_S)
    with pytest.raises(Unreachable):
        made.generate(1, seed=1)
    execute(
        url,
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
    )
    made.inject()
    made.until("writing again", lambda: can_write(made))
    made.generate(3, seed=2)
    made.recover()
    assert worker.poll() is None
    nothing_counted(made)


def can_write(made: Trial) -> bool:
    try:
        with made.services.database.write() as session:
            session.execute(text("UPDATE jobs SET priority = priority WHERE false"))
    except Exception:
        return False
    return True


SERIALIZATION = (
    "CREATE SEQUENCE turns",
    "CREATE FUNCTION fail_at_first() RETURNS trigger AS $$ BEGIN "
    "IF nextval('turns') <= 6 THEN RAISE EXCEPTION 'could not serialize' "
    "USING ERRCODE = '{state}'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql",
    "CREATE TRIGGER fail_at_first BEFORE UPDATE ON shards "
    "FOR EACH ROW EXECUTE FUNCTION fail_at_first()",
)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03"])
def test_a_transaction_that_loses_to_another_is_tried_again(
    trial, postgresql, objects, state
) -> None:
    _, url = postgresql
    made = trial("40001, deadlock, lock not available", {"database_url": url, **objects},
                 bound_s=START_S)  # fmt: skip
    job = made.generate(20, params=ONE_BY_ONE)
    execute(url, *(each.format(state=state) for each in SERIALIZATION))
    made.inject(6)
    made.worker()
    made.recover()
    assert made.outcomes(job) == ["succeeded"]


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_an_sqlite_file_that_another_process_locks_holds_work_up_and_no_more(
    trial, places, tmp_path
) -> None:
    made = trial("SQLite locked for 6 s", places, bound_s=RING_BOUND_S)
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        worker = made.start(job)
        other = sqlite3.connect(tmp_path / "genmill.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
    time.sleep(6)
    other.execute("ROLLBACK")
    other.close()
    made.inject()
    made.recover()
    assert worker.poll() is None
    nothing_counted(made)


# what a connection says before the COMMIT whose reply is lost
SAID = {
    "claim": b"UPDATE shards SET status",
    "commit": b"INSERT INTO artifacts",
    "fail": b"UPDATE shards",
    "release": b"UPDATE shards",
    "finalise": b"manifest_key",
    "schedule": b"INSERT INTO schedule_runs",
}
LEADS_THERE = {"fail": "claimed:unknown:1", "release": "claimed:unreachable:1"}


@pytest.fixture
def way(postgresql_database_url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the database, and the URL by way of it."""
    with proxied(postgresql_database_url) as found:
        yield found


@pytest.mark.parametrize("step", ["claim", "commit", "fail", "release", "finalise"])
@pytest.mark.parametrize("places", [SERVERS], indirect=True)
def test_a_worker_asks_what_became_of_a_commit_whose_reply_was_lost(
    trial, places, way, step
) -> None:
    proxy, url = way
    made = trial("COMMIT's reply lost", places, bound_s=RING_BOUND_S, failpoint="")
    job = made.generate(12, shard_size=6, params={"micro_batch": 2})
    # a second kind of write of the same rows comes first: the claim
    proxy.skipped = 1 if step in LEADS_THERE else 0
    proxy.lost_reply_after = SAID[step]
    settings = changed(made.settings, database_url=url)
    process = start(NAMED["generating"].part, settings, LEADS_THERE.get(step, ""), os.environ)
    process.join(PATIENCE_S)
    assert not process.is_alive()
    assert proxy.losses == 1
    made.inject()
    work_through(made, lambda: made.job(job.id).status in {"succeeded", "failed"})
    made.recover()
    assert "lost" not in made.outcomes(job)
    if step in {"claim", "commit", "finalise"}:
        assert made.outcomes(job) == ["succeeded"] * 2


@pytest.mark.parametrize("places", [SERVERS], indirect=True)
def test_a_command_whose_commits_reply_was_lost_says_what_was_stored(trial, places, way) -> None:
    proxy, url = way
    made = trial("COMMIT's reply lost", places, bound_s=RING_BOUND_S, failpoint="")
    proxy.lost_reply_after = b"INSERT INTO shards"
    settings = changed(made.settings, database_url=url)
    process = start(command(*GENERATE), settings, "", os.environ)
    process.join(PATIENCE_S)
    made.inject()
    assert proxy.losses == 1
    printed = (made.settings.home / "part.out").read_text().split()
    stored = [job.id for job in made.everything()]
    made.expect(*stored)
    assert printed == stored, (made.settings.home / "part.log").read_text()
    work_through(made, lambda: all(made.job(job_id).status == "succeeded" for job_id in stored))
    made.recover()


@pytest.mark.parametrize("places", [SERVERS], indirect=True)
def test_a_schedule_whose_commits_reply_was_lost_fires_once(trial, places, way) -> None:
    proxy, url = way
    made = trial("COMMIT's reply lost", places, bound_s=RING_BOUND_S, failpoint="")
    scenario = NAMED["firing"]
    scenario.prepare(made)
    proxy.lost_reply_after = SAID["schedule"]
    settings = changed(made.settings, database_url=url)
    process = start(scenario.part, settings, "", os.environ)
    process.join(PATIENCE_S)
    assert proxy.losses == 1
    made.inject()
    made.expect(*[job.id for job in made.everything()])
    assert len(made.mine) == 1
    work_through(made, lambda: all(job.status == "succeeded" for job in made.everything()))
    made.recover()


@pytest.mark.parametrize(
    ("what", "strike"),
    [
        ("reset", lambda proxy: proxy.reset()),
        ("slow (100 ms)", lambda proxy: setattr(proxy, "delay_s", 0.1)),
        ("cut after 20 kB", lambda proxy: setattr(proxy, "cut_after", 20_000)),
    ],
)
@pytest.mark.parametrize("places", [SERVERS], indirect=True)
def test_a_bad_way_to_the_database_counts_nothing(
    trial, places, way, what, strike: Callable[[Proxy], object]
) -> None:
    proxy, url = way
    made = trial(f"the database: {what}", places, bound_s=RING_BOUND_S)
    worker = made.worker(database_url=url)
    for seed in range(4):
        made.generate(20, seed=seed, params=ONE_BY_ONE)
        strike(proxy)
        made.inject()
        dispatch_for(made, 1)
    proxy.cut_after, proxy.delay_s = None, 0.0
    made.recover()
    assert worker.poll() is None
    nothing_counted(made)
