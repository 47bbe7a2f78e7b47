"""PostgreSQL behind PgBouncer, which may give each transaction another server process."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text

from db import jobs, schema, shards
from db.session import Database
from tests.unit.db.conftest import Record

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")


@pytest.fixture
def pooled_url(postgresql_database_url: str) -> Iterator[str]:
    """The URL of an empty database by way of a pooler of two server processes."""
    server = make_url(postgresql_database_url)
    port = free_port()
    home = Path(tempfile.mkdtemp(prefix="genmill-pooler-"))  # where another user can read it
    home.chmod(0o755)
    (home / "pgbouncer.ini").write_text(settings(server, port))
    user = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}  # root is refused
    with (home / "log").open("wb") as log:
        pooler = subprocess.Popen(
            [str(PGBOUNCER), home / "pgbouncer.ini"], stdout=log, stderr=log, cwd="/", **user
        )
    try:
        wait_until_open(port)
        yield server.set(port=port).render_as_string(hide_password=False)
    finally:
        pooler.terminate()
        pooler.wait(timeout=30)
        shutil.rmtree(home)


def settings(server: URL, port: int) -> str:
    target = f"host={server.host} port={server.port} user={server.username}"
    return f"""
[databases]
{server.database} = {target} password={server.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_open(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("PgBouncer did not open its port")


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
        record.run(jobs.succeed, job_id, "key", "d" * 64)
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


def test_the_settings_of_a_transaction_do_not_outlive_it(pooled):
    with pooled.write() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "1min"
    for _ in range(4):
        with pooled.read() as session:
            assert session.scalar(text("SHOW statement_timeout")) == "0"


def test_the_schema_is_upgraded_and_checked_through_a_pooler(pooled, pooled_url):
    schema.upgrade(pooled_url)
    schema.check(pooled)
