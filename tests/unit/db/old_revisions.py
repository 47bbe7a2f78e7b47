"""Databases of earlier revisions: migrated as far as a test asks, and filled with rows."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, make_url, text

from db import schema
from db.session import Database

AT = "2026-01-02 03:04:05.000000+00:00"


def new_postgresql(url: str) -> str:
    """The URL of a new database on the server, without tables."""
    name = f"old_{uuid4().hex}"
    server = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    server.dispose()
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def migrate(
    database: Database, revision: str, step: Callable[[Config, str], None] = command.upgrade
) -> None:
    with database.connect() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        step(config, revision)


def upgrade(database: Database) -> None:
    """Upgrade to today's schema, as `genmill db upgrade` does."""
    schema.upgrade(database.url.render_as_string(hide_password=False))


def insert(database: Database, table: str, **row: Any) -> None:
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    with database.write() as session:
        session.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)


def add_job(database: Database, job_id: str, **columns: Any) -> None:
    fixed = {"spec": "{}", "spec_hash": "0" * 64, "created_at": AT, "progress": "{}"}
    insert(database, "jobs", id=job_id, **{**fixed, "priority": 0} | columns)


def add_shard(database: Database, shard_id: str, job_id: str, **columns: Any) -> None:
    fixed = {"idx": 0, "start": 0, "stop": 4, "status": "queued", "fence": 0, "not_before": AT}
    counters = dict.fromkeys(("heartbeat_seq", "claims", "failures", "releases", "dispatch_no"), 0)
    insert(database, "shards", id=shard_id, job_id=job_id, **{**fixed, **counters, **columns})
