"""Whatever command makes the home: what lies in it is its owner's alone, from the first byte."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scheduler.cli import run
from tests.commands import RUNNING, WORDS, leaves, words_of
from tests.e2e.conftest import Machine, machine  # noqa: F401 - a fixture
from worker.settings import Settings


def open_to_others(home: Path) -> list[str]:
    """What others may read, write or enter in a home, and the home itself."""
    found = [home, *home.rglob("*")]
    return [f"{path.lstat().st_mode:o} {path}" for path in found if path.lstat().st_mode & 0o077]


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No home yet, and a umask that hides nothing; yields where the home will be."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"GENMILL_{name.upper()}", raising=False)
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "data" / "home"))
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("".join(f"line {n} of a secret text\n" for n in range(200)))
    Path("lines.jsonl").write_text('{"kind": "generate", "model": "m", "count": 1}\n')
    before = os.umask(0)
    yield tmp_path / "data" / "home"
    os.umask(before)


def test_every_command_is_tried():
    assert {*leaves()} == WORDS.keys() | RUNNING


@pytest.mark.parametrize("command", WORDS)
def test_a_home_that_a_command_makes_is_its_owner_s_alone(nowhere, command, capsys):
    run(words_of(command))
    assert "Traceback" not in capsys.readouterr().err
    if nowhere.exists():
        assert open_to_others(nowhere) == []


def test_what_is_added_to_it_later_is_too(nowhere, capsys):
    assert run(["dataset", "add", "book", "book.txt"]) == 0
    assert run(["dataset", "show", "book", "--sheet", "page.txt"]) == 0
    assert {"genmill.db", "store", "cache"} <= {path.name for path in nowhere.iterdir()}
    assert open_to_others(nowhere) == []


def test_a_file_that_the_user_asks_for_has_the_usual_modes(nowhere, capsys):
    run(["dataset", "add", "book", "book.txt"])
    os.umask(0o022)
    assert run(["dataset", "show", "book", "--sheet", "page.txt"]) == 0
    assert Path("page.txt").stat().st_mode & 0o777 == 0o644
    assert os.umask(0o022) == 0o022  # the command leaves the process's own as it was


def test_a_scheduler_in_the_foreground_writes_nothing_for_others(nowhere, capsys):
    run(["db", "upgrade"])
    command = [sys.executable, "-m", "scheduler", "scheduler"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (nowhere / "run" / "scheduler.alive").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        found = open_to_others(nowhere)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert found == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("e2e")
def test_a_system_at_work_writes_nothing_for_others(
    nowhere,
    machine: Machine,  # noqa: F811 - the fixture
):
    machine.move(nowhere)
    machine.do("up", "--detach")
    machine.do("dataset", "add", "book", "book.txt")
    small = ("--set=layers=1", "--set=heads=2", "--set=width=16", "--set=context=16")
    what = ("--dataset", "book", "--name", "w", "--max-steps", "5", *small)
    machine.do("enqueue", "train", "gpt", *what, "--wait")
    machine.do("enqueue", "generate", "w", "--count", "3", "--wait")
    kinds = {path.suffix or path.name for path in nowhere.rglob("*")}
    assert {".db", ".db-wal", ".log", ".sock", ".url", ".lock", "cache", "store"} <= kinds
    assert open_to_others(nowhere) == []
