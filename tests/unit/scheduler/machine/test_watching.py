"""The supervisor's watch: nothing that fails for one process, or for its own state, ends it."""

import os
import sys
import threading
import time

import pytest

from db.errors import Refused
from scheduler.machine import supervisor as module
from scheduler.machine.child_process import ChildProcess
from scheduler.machine.home import create_home, read_state, state_file, supervisor_lock
from scheduler.machine.supervisor import Supervisor
from tests.faults import ERRORS, name_of
from worker.settings import Settings

PATIENCE_S = 30.0
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]

every_error = pytest.mark.parametrize("error", ERRORS, ids=name_of)


class Watch:
    """A supervisor of two processes, which watches until something holds."""

    def __init__(self, home):
        self.said: list[str] = []
        self.settings = Settings(_env_file=None, home=home)
        create_home(self.settings)
        self.supervisor = Supervisor(self.settings, workers=1, say=self.said.append)
        self.supervisor.ready = True
        self.one, self.two = (self.add(name) for name in ("one", "two"))

    def add(self, name):
        child = ChildProcess(name, SLEEP, dict(os.environ), self.settings.home / f"{name}.log")
        child._pause_s = 0.01
        child.start()
        self.supervisor.children.append(child)
        return child

    def until(self, holds):
        """Watch until it holds; fail if it never does."""
        held = []

        def look():
            deadline = time.monotonic() + PATIENCE_S
            while not holds() and time.monotonic() < deadline:
                time.sleep(0.01)
            held.append(bool(holds()))
            self.supervisor.stop_requests = 1

        self.supervisor.stop_requests = 0
        looking = threading.Thread(target=look)
        looking.start()
        self.supervisor._watch()
        looking.join()
        assert held == [True], self.said


@pytest.fixture
def watch(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "STATE_PAUSE_S", 0.05)
    opened = Watch(tmp_path)
    yield opened
    for child in opened.supervisor.children:
        child.kill()
    opened.supervisor.services.close()


@every_error
def test_a_process_that_cannot_be_looked_after(watch, monkeypatch, error) -> None:
    def fail():
        raise error

    monkeypatch.setattr(watch.one, "keep_alive", fail)
    os.kill(watch.two.pid, 9)
    watch.until(lambda: watch.two.restarts)
    assert sum(line.startswith("looking after one failed: ") for line in watch.said) == 1


@every_error
def test_a_process_that_cannot_be_started(watch, monkeypatch, error) -> None:
    start = watch.one.start

    def fail():
        raise error

    monkeypatch.setattr(watch.one, "start", fail)
    for child in (watch.one, watch.two):
        os.kill(child.pid, 9)
    watch.until(lambda: watch.two.restarts and "cannot be started" in (watch.one.last_exit or ""))
    monkeypatch.setattr(watch.one, "start", start)
    watch.until(lambda: watch.one.restarts)
    assert watch.one.pid


@every_error
def test_a_state_that_cannot_be_written(watch, monkeypatch, error) -> None:
    write, fails = module.write_state, [True]

    def unsteady(settings, state):
        if fails:
            raise error
        write(settings, state)

    monkeypatch.setattr(module, "write_state", unsteady)
    os.kill(watch.two.pid, 9)
    watch.until(lambda: watch.two.restarts)
    assert read_state(watch.settings) == {}
    fails.clear()
    watch.until(lambda: read_state(watch.settings))
    told = [line for line in watch.said if line.startswith("writing the state failed: ")]
    assert len(told) == 1


def test_a_folder_in_the_place_of_the_state_is_told_with_what_to_do(watch) -> None:
    state_file(watch.settings).mkdir(parents=True)
    os.kill(watch.two.pid, 9)
    watch.until(lambda: any("writing the state failed" in line for line in watch.said))
    [told] = [line for line in watch.said if "writing the state failed" in line]
    assert "state.json cannot be " in told
    assert ";" in told


@every_error
def test_workers_that_cannot_be_looked_for(watch, monkeypatch, error) -> None:
    def fail():
        raise error

    watch.supervisor.ready = False
    monkeypatch.setattr(watch.supervisor, "_all_workers_live", fail)
    os.kill(watch.two.pid, 9)
    watch.until(lambda: watch.two.restarts)


def ending(code: int, *said: str) -> list[str]:
    return [sys.executable, "-c", f"print({chr(10).join(said)!r}); raise SystemExit({code})"]


def test_a_process_whose_settings_are_wrong_ends_a_start_with_its_reason(watch) -> None:
    watch.supervisor.ready = False
    watch.one.command = ending(2, "booting", "Error: no device 'cuda:7'; known: cpu")
    os.kill(watch.one.pid, 9)
    with pytest.raises(Refused) as told:
        watch.supervisor._watch()
    assert told.value.message == "one: no device 'cuda:7'; known: cpu"
    assert str(watch.one.log) in told.value.remedy


def test_once_all_have_been_ready_it_is_started_again(watch) -> None:
    watch.one.command = ending(2, "Error: no device")
    os.kill(watch.one.pid, 9)
    watch.until(lambda: watch.one.restarts > 1)


def test_everything_stops_when_the_home_is_moved(watch, tmp_path) -> None:
    with supervisor_lock(watch.settings) as watch.supervisor.lock:
        (tmp_path / "run").rename(tmp_path / "gone")
        watch.supervisor._watch()
    assert "the home was moved or removed, so everything stops" in watch.said


@every_error
def test_one_that_cannot_be_stopped_keeps_no_other_from_being_stopped(
    watch, monkeypatch, error
) -> None:
    def fail():
        raise error

    pid = watch.two.pid
    monkeypatch.setattr(watch.one, "terminate", fail)
    watch.supervisor.stop_requests = 2  # do not wait for it
    watch.two.terminate()
    assert watch.two.wait_until(time.monotonic() + PATIENCE_S)
    watch.supervisor._stop()
    assert watch.one.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
