"""Migrated, empty records for benchmarks, on SQLite and on PostgreSQL."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import create_engine, make_url, text

from db import schema
from db.session import Database
from tests.bench.bench import Bench

KINDS = ("sqlite", "postgresql")


@contextmanager
def record(bench: Bench, kind: str) -> Iterator[Database]:
    """An empty record, deleted at the end."""
    url, remove = {"sqlite": _sqlite, "postgresql": _postgresql}[kind](bench)
    schema.upgrade(url)
    database = Database(url)
    try:
        yield database
    finally:
        database.dispose()
        remove()


def url_of(database: Database) -> str:
    """The URL of a record in the form that settings take, password included."""
    return database.url.set(
        drivername={"sqlite": "sqlite", "postgresql": "postgresql"}[database.dialect]
    ).render_as_string(hide_password=False)


def _sqlite(bench: Bench):
    folder = bench.made_folder("record")
    return f"sqlite:///{folder / 'genmill.db'}", lambda: shutil.rmtree(folder)


def _postgresql(bench: Bench):
    name = f"bench_{secrets.token_hex(4)}"
    url = make_url(bench.postgresql)
    server = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")

    def run(statement: str) -> None:
        with server.connect() as connection:
            connection.execute(text(statement))

    run(f"CREATE DATABASE {name}")
    made = url.set(database=name).render_as_string(hide_password=False)
    return made, lambda: run(f"DROP DATABASE {name} WITH (FORCE)")
