"""The simulated database: SQLite in memory, with the machine's clock, which fails as it is told.

Each transaction runs at once; before it and at its COMMIT others may run, and whatever can happen
there does: the connection is refused, the transaction is lost or wins without an answer, its
process dies on either side of it.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sqlalchemy import URL, create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from db import engines
from db.columns import hyphenated, id_bytes
from db.driver_errors import Busy
from db.engines import open_engine
from db.errors import Unreachable
from db.session import BEGIN_READ, BEGIN_WRITE, Database
from db.tables import Base
from tests.simulation.threads import EPOCH

if TYPE_CHECKING:
    from tests.simulation.world import World

BEGAN = datetime.fromtimestamp(EPOCH, UTC).replace(tzinfo=None)
# tables whose first rows are those of the template
KEPT = {"alembic_version", "models", "model_versions", "datasets", "dataset_versions"}
FORGET = (
    "DELETE FROM model_versions WHERE job_id IS NOT NULL",
    "DELETE FROM models WHERE id NOT IN (SELECT model_id FROM model_versions)",
)


class SimulatedDatabase(Database):
    """A database for one simulation after another; `world` is the one that runs."""

    def __init__(self, template: Path) -> None:
        self.url = URL.create("sqlite", database=":memory:")
        self.dialect = "sqlite"
        self.world: World
        in_memory = partial(_create_in_memory, create_engine)
        with patch.object(engines, "create_engine", in_memory):
            self._engine = self.engine = open_engine(self.url)
        # connections in place of engines: nothing is taken out of a pool and put back
        self._reader = self._connected(BEGIN_READ)
        self._writer = self._connected(BEGIN_WRITE)
        self.driver = self._raw()
        with sqlite3.connect(template) as source:
            source.backup(self.driver)
        self.driver.create_function("strftime", 2, self._clock)
        self._tables = [t.name for t in reversed(Base.metadata.sorted_tables) if t.name not in KEPT]

    def reset(self) -> None:
        """Delete what the last simulation stored."""
        self.driver.rollback()
        self.driver.execute("PRAGMA foreign_keys = OFF")
        for name in self._tables:
            self.driver.execute(f"DELETE FROM {name}")
        for statement in FORGET:
            self.driver.execute(statement)
        self.driver.execute("PRAGMA foreign_keys = ON")

    @contextmanager
    def read(self) -> Iterator[Session]:
        self._reach()
        with super().read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        world, before = self.world, self.driver.total_changes
        self._reach()
        if world.database_is_read_only:
            raise Unreachable("the database takes no writes")
        if world.happens("busy"):
            raise Busy("the database is busy")
        fate = world.one_of("commit_lost", "commit_unheard", "died_before", "died_after")
        with suppress(_NotCommitted), super().write() as session:
            yield session
            if fate in {"commit_lost", "died_before"}:
                raise _NotCommitted
        if self.driver.total_changes != before:
            world.committed()
        self._answer(fate)

    def status(self, job_id: str) -> str:
        """A job's state, as somebody reads it who looks at nothing else."""
        self._reach()
        key = (id_bytes(job_id),)
        found = self.driver.execute("SELECT status FROM jobs WHERE id = ?", key).fetchone()
        return str(found[0]) if found else "not on record"

    def jobs_of(self, batch_id: str) -> list[str]:
        """The ids of a batch's jobs, as they were printed."""
        key = (id_bytes(batch_id),)
        found = self.driver.execute("SELECT hex(id) FROM jobs WHERE batch_id = ? ORDER BY id", key)
        return [hyphenated(digits.lower()) for (digits,) in found]

    def now(self) -> datetime:
        """The time by its clock."""
        return self._time().replace(tzinfo=UTC)

    def _reach(self) -> None:
        self.world.latency()
        if self.world.database_is_away:
            raise Unreachable("the database does not answer")

    def _answer(self, fate: str | None) -> None:
        if fate in {"died_before", "died_after"}:
            self.world.die()
        if fate is not None:
            raise Unreachable("the connection was lost at COMMIT")

    def _time(self) -> datetime:
        return BEGAN + timedelta(seconds=self.world.machine.tick() + self.world.clock_ahead_s)

    def _clock(self, _format: str, _now: str) -> str:
        return self._time().isoformat(" ", "microseconds")

    def _connected(self, begin: Mapping[str, str]) -> Any:
        return self._engine.connect().execution_options(begin=begin[self.dialect])

    def _raw(self) -> sqlite3.Connection:
        connection: Any = self._engine.raw_connection().driver_connection
        assert isinstance(connection, sqlite3.Connection)
        return connection


class _NotCommitted(Exception):
    """Rolls a transaction back."""


def _create_in_memory(create: Any, url: URL, **options: Any) -> Any:
    arguments = options.pop("connect_args", {}) | {"check_same_thread": False}
    arguments["cached_statements"] = 500
    return create(url, **options, connect_args=arguments, poolclass=StaticPool)
