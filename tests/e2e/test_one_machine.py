"""`genmill up` and its processes: one set for each home, restarted if killed, none left behind."""

import os
import signal
import stat
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("e2e")


def pid_of(machine, name: str) -> int | None:
    return next(each["pid"] for each in machine.state()["processes"] if each["name"] == name)


def test_nothing_runs_and_nothing_is_created_before_up(machine):
    status = machine.status()
    assert (status["running"], status["processes"]) == (False, [])
    assert status["database"] == "not created yet"
    assert machine.genmill("down").code == 0
    assert not machine.home.exists()


def test_a_home_has_one_up_and_ctrl_c_stops_everything(machine):
    up = machine.start("up")
    machine.until_ready()
    assert len(machine.processes()) >= 4

    for words in (["up"], ["up", "--detach"]):
        second = machine.genmill(*words)
        assert (second.code, second.err.count("\n")) == (2, 1), second.err
        assert f"pid {up.pid}" in second.err
    assert machine.status()["pid"] == up.pid

    url = machine.home / "run" / "broker.url"
    password = url.read_text().partition("://:")[2].partition("@")[0]
    assert len(password) > 30
    assert stat.S_IMODE(url.stat().st_mode) == 0o600
    for pid in machine.processes():
        assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()

    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=60) == 0
    assert machine.processes() == []
    assert not machine.status()["running"]
    assert password not in machine.logs()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_killed_processes_are_restarted_and_none_outlives_the_supervisor(machine):
    machine.move(
        machine.home / ("x" * 120)
    )  # also covers a home whose path is too long for a socket
    machine.do("up", "--detach")
    for name in ("worker-1", "scheduler", "broker"):
        before = pid_of(machine, name)
        os.kill(before, signal.SIGKILL)
        machine.until(
            f"another {name}",
            lambda old=before, name=name: pid_of(machine, name) not in {None, old},
        )
    restarts = {each["name"]: each["restarts"] for each in machine.state()["processes"]}
    assert restarts == {"worker-1": 1, "scheduler": 1, "broker": 1}
    machine.until("a broker that answers", lambda: " at " in machine.status()["broker"])

    os.kill(machine.state()["pid"], signal.SIGKILL)
    machine.until("no process left", lambda: not machine.processes())
    assert not machine.status()["running"]

    machine.do("up", "--detach")
    assert machine.status()["ready"]
    machine.do("down")
    machine.until("no process left", lambda: not machine.processes())


@pytest.mark.parametrize("words", [["up"], ["up", "--detach"]])
def test_a_home_that_cannot_be_created_is_reported_in_one_line_with_exit_code_two(machine, words):
    machine.home.write_text("a file is in the way")
    refused = machine.genmill(*words)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert "GENMILL_HOME" in refused.err


@pytest.mark.parametrize("words", [["up"], ["up", "--detach"]])
def test_an_unreachable_database_ends_with_exit_code_three(machine, words):
    machine.environment["GENMILL_DATABASE_URL"] = "postgresql://ann:secret@127.0.0.1:1/x"
    refused = machine.genmill(*words)
    assert refused.code == 3
    assert "127.0.0.1" in refused.err
    assert "secret" not in refused.err
    machine.until("no process left", lambda: not machine.processes())
