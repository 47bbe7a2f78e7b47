"""Migrated records for benchmarks, on SQLite and on PostgreSQL: empty, or with a queue."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import create_engine, make_url, text

from db import schema
from db.session import Database
from tests.bench.bench import Bench
from tests.bench.fill import Shape, add_worker, fill

KINDS = ("sqlite", "postgresql")
FILE = "genmill.db"


@dataclass(frozen=True)
class Filled:
    """A record with a queue and one live worker, which is `boot`; `jobs` are some of its ids."""

    database: Database
    jobs: list[str]
    boot: str


def filled(bench: Bench, kind: str, shape: Shape) -> Filled:
    """A queued record of this shape: filled once, for all rows that leave it as it is."""
    return bench.kept((kind, shape), lambda: _fill(bench, kind, shape))


@contextmanager
def record(bench: Bench, kind: str) -> Iterator[Database]:
    """An empty record, deleted at the end: a copy of one that was migrated once."""
    template = bench.kept(("migrated", kind), lambda: _migrated(bench, kind))
    with _PLACES[kind](bench, template) as url:
        database = Database(url)
        try:
            yield database
        finally:
            database.dispose()


def url_of(database: Database) -> str:
    """The URL of a record in the form that settings take, password included."""
    return database.url.set(
        drivername={"sqlite": "sqlite", "postgresql": "postgresql"}[database.dialect]
    ).render_as_string(hide_password=False)


@contextmanager
def _fill(bench: Bench, kind: str, shape: Shape) -> Iterator[Filled]:
    with record(bench, kind) as database:
        jobs = fill(database, shape)
        yield Filled(database, jobs, add_worker(database))


@contextmanager
def _migrated(bench: Bench, kind: str) -> Iterator[str]:
    with _PLACES[kind](bench, None) as url:
        schema.upgrade(url)
        yield url


@contextmanager
def _sqlite(bench: Bench, template: str | None) -> Iterator[str]:
    folder = bench.made_folder("record")
    if template:
        shutil.copy(str(make_url(template).database), folder / FILE)
    yield f"sqlite:///{folder / FILE}"
    shutil.rmtree(folder)


@contextmanager
def _postgresql(bench: Bench, template: str | None) -> Iterator[str]:
    name, url = f"bench_{secrets.token_hex(4)}", make_url(bench.postgresql)
    server = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")

    def run(statement: str) -> None:
        with server.connect() as connection:
            connection.execute(text(statement))

    source = make_url(template).database if template else "template1"
    run(f"CREATE DATABASE {name} TEMPLATE {source}")
    yield url.set(database=name).render_as_string(hide_password=False)
    run(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


_PLACES = {"sqlite": _sqlite, "postgresql": _postgresql}
