"""A refusal has stored nothing, and the id of what was stored is printed, whatever goes wrong."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db import jobs
from db.errors import Unreachable
from db.session import Database
from scheduler.submission import enqueue as submission
from tests.unit.scheduler.cli.conftest import LABELS, add_model
from worker.services import open_services

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHAPE = {"media": "image", "labels": LABELS, "size": 8, "channels": 1}
BATCH = '{"kind": "generate", "model": "digits", "count": 1}\n' * 3


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C as a terminal has it, whatever other tests in this process have left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def commands(genmill, services, pictures) -> dict[str, list[str]]:
    """Every command that enqueues, and ends then."""
    add_model(services, "digits", "gan", SHAPE)
    Path("lines.jsonl").write_text(BATCH)
    generate = ["enqueue", "generate", "digits", "--count", "1"]
    batch = ["enqueue", "batch", str(Path("lines.jsonl").absolute())]
    for name, words in (("one", generate), ("many", batch)):
        added = genmill("schedule", "add", name, "--cron", "0 3 * * *", "--", *words)
        assert added.code == 0, added.err
    cancelled = genmill(*generate).out.strip()
    assert genmill("job", "cancel", cancelled).code == 0
    data = ["--dataset", "pictures"]
    return {
        "train": ["enqueue", "train", "gan", *data, "--name", "other", "--evaluate"],
        "finetune": ["enqueue", "finetune", "digits", *data],
        "generate": generate,
        "evaluate": ["enqueue", "evaluate", "digits", *data, "--count", "1"],
        "batch": batch,
        "retry": ["job", "retry", cancelled],
        "trigger": ["schedule", "trigger", "one"],
        "trigger a batch": ["schedule", "trigger", "many"],
    }


def stored() -> set[str]:
    """The ids of jobs on record, and of their batches."""
    with contextlib.closing(open_services()) as services, services.database.read() as session:
        found = jobs.listing(session, limit=1000)
    return {job.id for job in found} | {job.batch_id for job in found if job.batch_id}


def run_each(genmill, commands, *more) -> Iterator[tuple[str, Any, set[str], set[str]]]:
    """Run every command; yields its name, its result, what it stored and what it printed."""
    for name, words in commands.items():
        before = stored()
        done = genmill(*words, *more)
        assert "Traceback" not in done.err
        yield name, done, stored() - before, set(ID.findall(done.out + done.err))


WRONG = ("redis://r/zero", "redis://:pass", "word", "redis://a,b/0", "unix://")


@pytest.mark.parametrize("url", ["amqp://x", *WRONG, "rediss://r/0?ssl_ca_certs=/nowhere"])
def test_a_wrong_address_of_the_broker_is_refused_before_anything_is_stored(
    genmill, commands, monkeypatch, url
):
    before = stored()
    some = commands if url == "amqp://x" else {"generate": commands["generate"]}
    monkeypatch.setenv("GENMILL_REDIS_URL", url)
    for words in some.values():
        done = genmill(*words)
        assert (done.code, done.out) == (2, ""), words
    monkeypatch.delenv("GENMILL_REDIS_URL")
    assert stored() == before


@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
def test_a_broker_that_does_not_answer_is_a_warning(genmill, commands, monkeypatch, json):
    monkeypatch.setenv("GENMILL_REDIS_URL", "redis://127.0.0.1:1/0")
    for name, done, new, _ in run_each(genmill, commands, *json):
        assert done.code == 0, (name, done.err)
        assert set(ID.findall(done.out)) & new, name


@pytest.mark.parametrize("error", [KeyError("odd"), OSError(5, "i/o"), MemoryError()], ids=repr)
def test_ringing_may_fail_in_any_way(genmill, commands, monkeypatch, error):
    def ring(services):
        raise error

    monkeypatch.setattr(submission, "ring_due", ring)
    for name, done, new, _ in run_each(genmill, commands):
        assert done.code == 0, (name, done.err)
        assert set(ID.findall(done.out)) & new, name


def test_an_interrupt_while_it_rings_comes_after_the_id(genmill, commands, monkeypatch):
    monkeypatch.setattr(submission, "ring_due", lambda services: signal.raise_signal(signal.SIGINT))
    for name, done, new, _ in run_each(genmill, commands):
        assert done.code == 130, (name, done.err)
        assert set(ID.findall(done.out)) & new, name


def test_an_interrupt_around_the_commit_waits_for_the_id(genmill, commands, monkeypatch):
    inner = Database.transact

    def interrupted(self, work):
        done = inner(self, work)
        signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(Database, "transact", interrupted)
    for name, done, new, printed in run_each(genmill, commands):
        assert done.code == 130, (name, done.err)
        assert not new or printed & new, name


@pytest.mark.parametrize("lost_at", [1, 2])
def test_a_commit_whose_answer_is_lost_is_looked_for(genmill, commands, monkeypatch, lost_at):
    inner, transactions = Database.transact, []

    def transact(self, work):
        done = inner(self, work)
        transactions.append(work)
        if len(transactions) == lost_at:
            raise Unreachable("the database went away")
        return done

    monkeypatch.setattr(Database, "transact", transact)
    for name, done, new, printed in run_each(genmill, commands):
        transactions.clear()
        assert (done.code == 0) == bool(new), (name, done.err)
        assert not new or printed & new, name


def test_where_it_cannot_be_looked_for_the_id_is_named(genmill, commands, monkeypatch):
    inner, gone = Database.read, []

    @contextlib.contextmanager
    def read(self):
        if gone:
            raise Unreachable("the database is away")
        with inner(self) as session:
            yield session

    def lose(self, work):
        gone.append(1)
        raise Unreachable("the database went away")

    monkeypatch.setattr(Database, "transact", lose)
    monkeypatch.setattr(Database, "read", read)
    done = genmill(*commands["generate"])
    assert done.code == 3
    assert ID.search(done.err)
    assert "not known" in done.err


@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
def test_a_full_disk_for_the_output_leaves_the_id_on_stderr(genmill, commands, monkeypatch, json):
    for name, words in commands.items():
        before = stored()
        with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
            patched.setattr("sys.stdout", full)
            done = genmill(*words, *json)
        assert done.code == 1, (name, done.err)
        assert set(ID.findall(done.err)) & (stored() - before), (name, done.err)
        assert "No space left" in done.err


def test_a_closed_pipe_leaves_the_id_on_stderr(commands):
    before, (reading, writing) = stored(), os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "scheduler", *commands["generate"]]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert set(ID.findall(done.stderr)) & (stored() - before), done.stderr


def test_a_store_that_cannot_be_used_refuses_what_needs_it(genmill, commands, monkeypatch):
    monkeypatch.setenv("GENMILL_STORE_URL", "ftp://x")
    for name, done, new, printed in run_each(genmill, commands):
        assert not new if done.code == 2 else printed & new, name
