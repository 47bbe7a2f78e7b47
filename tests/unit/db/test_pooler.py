"""PostgreSQL behind PgBouncer, which may give each transaction another server process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import make_url, text

from db import jobs, schema, shards
from db.errors import Unreachable
from db.session import Database
from tests.other_servers import run_pgbouncer
from tests.shards import succeed
from tests.unit.db.conftest import Record


@pytest.fixture
def pooled_url(postgresql_database_url: str) -> Iterator[str]:
    """The URL of an empty database by way of a pooler of two server processes."""
    with run_pgbouncer(make_url(postgresql_database_url)) as url:
        yield url


@pytest.fixture
def pooled(pooled_url: str) -> Iterator[Database]:
    database = Database(pooled_url)
    yield database
    database.dispose()


def test_jobs_live_their_whole_lives_on_changing_server_processes(pooled):
    record = Record(pooled)

    def live(number: int) -> list[str]:
        job_id, first, second = record.add((0, 2), (2, 4))
        lost = record.claim(first)
        record.release(lost)
        for shard_id in (first, second):
            claim = record.claim(shard_id)
            record.renew(claim)
            record.run(shards.add_checkpoint, claim, step=1, key="k", sha256="c" * 64, size=1)
            record.run(jobs.log, job_id, f"line {number}")
            record.run(jobs.add_points, job_id, 1, {"loss": 0.5})
            record.commit(claim)
        record.run(succeed, job_id, "key", "d" * 64)
        states = [step.new for step in record.run(jobs.transitions, job_id)]
        assert record.run(jobs.manifest, job_id)["job"] == job_id
        return [record.job(job_id).status, *states[-2:]]

    # more threads than server processes, and more turns than the driver waits before it prepares
    with ThreadPoolExecutor(4) as threads:
        ends = list(threads.map(live, range(24)))
    assert ends == [["succeeded", "finalizing", "succeeded"]] * 24


def test_a_pooler_is_noticed_and_nothing_is_prepared(pooled, postgresql_database_url):
    assert thresholds(pooled) == {None}
    direct = Database(postgresql_database_url)
    assert thresholds(direct) == {5}
    direct.dispose()


def thresholds(database: Database) -> set[int | None]:
    with database.read() as session:
        return {session.connection().connection.driver_connection.prepare_threshold}


def test_options_that_a_pooler_refuses_are_told_with_the_remedy(pooled_url):
    database = Database(f"{pooled_url}?options=-csearch_path%3Dgm")
    refused = pytest.raises(Unreachable, match=r"pooler .*startup parameter.*leave \?options= out")
    with refused, database.read() as session:
        session.execute(text("SELECT 1"))
    database.dispose()


def test_the_settings_of_a_transaction_do_not_outlive_it(pooled):
    with pooled.write() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "1min"
    for _ in range(4):
        with pooled.read() as session:
            assert session.scalar(text("SHOW statement_timeout")) == "0"


def test_the_schema_is_upgraded_and_checked_through_a_pooler(pooled, pooled_url):
    schema.upgrade(pooled_url)
    schema.check(pooled)
