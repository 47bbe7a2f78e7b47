"""A record that somebody has edited: every command, a round and an attempt answer in words."""

import shutil
import sqlite3
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from db.columns import Digest, Id, Json, new_id
from db.errors import GenmillError
from db.tables import Base
from scheduler.dispatch.rounds import run_round
from tests import fuzzing
from tests.fuzzing import within_limits
from worker.services import open_services
from worker.shards.attempt import work
from worker.shards.context import WorkerContext
from worker.shared_memory import SharedState

TESTS = 4  # that share the examples
fuzz = fuzzing.fuzz(TESTS, few=60)
NOW = "2026-01-01 00:00:00.000000"
DEEP = "[" * 5000 + "]" * 5000
VALUES = st.one_of(
    st.sampled_from(
        [
            *(0, -1, 1, 2, 2**31, 2**63 - 1, -(2**63), 1.5, 1e308, float("inf"), b"", b"\xff\xfe"),
            *("", "x", "\0", "\x1b[2J", "x" * 10_000, "../../../etc/passwd", "/etc/passwd", "犬"),
            *(
                "null",
                "[]",
                "{}",
                "3",
                '"x"',
                "{",
                "NaN",
                DEEP,
                '{"a": [1]}',
                '{"kind": []}',
                "[[]]",
            ),
            *('{"kind": "generate"}', '{"kind": "train", "family": "gan"}', '["generate"]', "[1]"),
            *("9999-12-31 23:59:59.999999", "0001-01-01 00:00:00.000000", "2026-13-01", NOW),
            *("queued", "running", "finalizing", "succeeded", "failed", "cancelled", "train"),
            *("* * * * *", "0 0 30 2 *", "Mars/Olympus", bytes(16), bytes(32), "0" * 64),
        ]
    ),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.binary(max_size=40),
)


@pytest.fixture
def edited(home, services, genmill, family_tree, picture_job, digits, pictures):
    """A home with a row in each table; gives a copy of its database and the id of a queued job."""
    command = ("enqueue", "generate", digits, "--count", "2")
    ran = genmill("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", *command)
    assert ran.code == 0, ran.err
    Path("jobs.jsonl").write_text('{"kind": "generate", "model": "digits", "count": 1}\n')
    assert genmill("enqueue", "batch", "jobs.jsonl").code == 0
    queued = genmill(*command).out.strip()
    services.close()
    template = home / "template.db"
    with closing(sqlite3.connect(home / "genmill.db")) as connection:
        fill_empty_tables(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(home / "genmill.db", template)
    return template, queued


def fill_empty_tables(connection):
    """A row for each table that has none, which refers to rows that are there."""
    for table in Base.metadata.sorted_tables:
        if connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0]:
            continue
        row = {column.name: plausible(connection, column) for column in table.columns}
        marks = ", ".join("?" * len(row))
        names = ", ".join(f'"{name}"' for name in row)
        connection.execute(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", [*row.values()])
    connection.commit()


def plausible(connection, column):
    """A value for a column: the key of a row that it refers to, or one of its type."""
    for key in column.foreign_keys:
        target = key.column
        found = connection.execute(f"SELECT {target.name} FROM {target.table.name}").fetchone()
        return found and found[0]
    if column.name in {"job_id", "shard_id"}:
        table = column.name.removesuffix("_id") + "s"
        return connection.execute(f"SELECT id FROM {table}").fetchone()[0]
    if isinstance(column.type, Id | Digest):
        return bytes(column.type.characters // 2 if isinstance(column.type, Digest) else 16)
    kind = column.type.python_type if hasattr(column.type, "python_type") else object
    try:
        kind = column.type.python_type
    except NotImplementedError:
        kind = object
    known = {str: "x", int: 1, float: 1.0, bool: 0, bytes: b"x", datetime: NOW}
    return known.get(kind, "{}")


COLUMNS = [
    (table.name, column.name) for table in Base.metadata.sorted_tables for column in table.columns
]
DOCUMENTS = [
    (table.name, column.name)
    for table in Base.metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, Json)
]
COMMANDS = [
    *("job list", "job list --json", "job show {job}", "job show {done} --json", "job logs {job}"),
    *("model list", "model show digits", "model show digits:2 --lineage", "dataset list --json"),
    *("dataset show pictures", "dataset show pictures --used-by", "schedule list", "status"),
    *("schedule show nightly", "status --json", "doctor --check database", "artifact list {done}"),
    *("artifact verify {done}", "job cancel {job}", "job retry {done}", "job wait {done}"),
    *("artifact show {done}/0", "model export digits out", "job export {done} out.jsonl"),
    *("artifact download {done} -o out", "family list", "policy list", "template list"),
    *("schedule run nightly", "db prune --dry-run", "round", "attempt"),
]


@pytest.mark.parametrize("part", range(2))
@fuzz
@given(data=st.data())
def test_an_edited_record_gets_an_answer(edited, home, genmill, part, data):
    table, column = data.draw(st.sampled_from(COLUMNS))
    edit(restored(edited, home), table, column, data.draw(VALUES))
    answer_some(edited, genmill, data)


@pytest.mark.parametrize("part", range(2))
@fuzz
@given(data=st.data())
def test_a_record_with_edited_documents_gets_an_answer(edited, home, genmill, part, data):
    table, column = data.draw(st.sampled_from(DOCUMENTS))
    database = restored(edited, home)
    with closing(sqlite3.connect(database)) as connection:
        [text] = connection.execute(f'SELECT max("{column}") FROM {table}').fetchone()
    changed = fuzzing.change_json(data.draw, text or '{"a": {}}')
    edit(database, table, column, changed.decode())
    answer_some(edited, genmill, data)


def restored(edited, home):
    """The database as it was."""
    for leftover in home.glob("genmill.db*"):
        leftover.unlink()
    return Path(shutil.copy(edited[0], home / "genmill.db"))


def answer_some(edited, genmill, data):
    template, queued = edited
    with closing(sqlite3.connect(template)) as connection:
        [done] = connection.execute("SELECT id FROM jobs WHERE status = 'succeeded'").fetchone()
    for line in data.draw(st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=3)):
        with within_limits():
            answer(genmill, line.format(job=queued, done=done.hex()), queued)


def edit(database, table, column, value):
    """Give every row of the table this value, as far as the database takes it."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        try:
            connection.execute(f'UPDATE {table} SET "{column}" = ?', (value,))
        except sqlite3.IntegrityError:  # a key of several rows: of one row then
            one = f"rowid = (SELECT min(rowid) FROM {table})"
            with suppress(sqlite3.IntegrityError):  # a key that is a number takes no other value
                connection.execute(
                    f'UPDATE OR IGNORE {table} SET "{column}" = ? WHERE {one}', (value,)
                )


def answer(genmill, line, queued):
    """Run a command, a round of the scheduler or a worker's attempt: none may raise."""
    if line in {"round", "attempt"}:
        services = open_services()
        try:
            if line == "round":
                run_round(services)
            else:
                context = WorkerContext(services, torch.device("cpu"))
                with suppress(GenmillError):
                    work(context, queued, owner=new_id(), shared=SharedState())
        finally:
            services.close()
        return
    ran = genmill(*line.split())
    assert "unforeseen" not in ran.err
    assert ran.code in {0, 1, 2, 3, 4}, ran.err
    shutil.rmtree("out", ignore_errors=True)
    Path("out.jsonl").unlink(missing_ok=True)
