import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from db import schema
from db.errors import GenmillError, Refused, Unreachable
from scheduler.machine.control import down, running, status, wait_until_ready
from scheduler.machine.home import (
    create_home,
    read_state,
    supervisor_lock,
    supervisor_pid,
    write_failure,
    write_state,
)
from worker.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, home=tmp_path / "home")


def test_a_home_has_one_supervisor(settings):
    with supervisor_lock(settings):
        assert supervisor_pid(settings) == os.getpid()
        with pytest.raises(Refused, match=f"pid {os.getpid()}"), supervisor_lock(settings):
            pass
    assert supervisor_pid(settings) is None


def ended(program: str, *arguments: str) -> subprocess.Popen:
    """A Python process that has ended."""
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as process:
        process.wait()
    return process


def test_the_second_of_two_started_at_once_is_told_of_the_first(settings):
    told = pytest.raises(Refused, match=f"already runs.*pid {os.getpid()}")
    with supervisor_lock(settings), told:
        wait_until_ready(settings, ended(""))


def test_a_start_that_fails_raises_the_same_error_as_the_process(settings):
    program = """
import sys
from pathlib import Path
from db.errors import Unreachable
from scheduler.machine.home import create_home, write_failure
from worker.settings import Settings
settings = Settings(_env_file=None, home=Path(sys.argv[1]))
create_home(settings)
write_failure(settings, Unreachable("no answer; or none in time", remedy="start it"))
sys.exit(1)
"""
    with pytest.raises(Unreachable) as raised:
        wait_until_ready(settings, ended(program, str(settings.home)))
    assert (raised.value.message, raised.value.remedy) == ("no answer; or none in time", "start it")


def test_a_start_that_crashes_points_to_the_log(settings):
    create_home(settings)
    write_failure(settings, Refused("of another process"))
    with pytest.raises(GenmillError, match=r"ended with exit code 1; see .*up\.log"):
        wait_until_ready(settings, ended("raise SystemExit(1)"))


def test_a_process_that_fails_again_and_again_is_told_with_its_reason(settings):
    create_home(settings)
    log = settings.home / "logs" / "worker-1.log"
    log.write_text("booting\nError: the worker cannot start: torch is broken\n")
    worker = {"name": "worker-1", "restarts": 3, "last_exit": "exit code 1", "log": str(log)}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        write_state(settings, {"pid": process.pid, "ready": False, "processes": [worker]})
        with pytest.raises(GenmillError, match=r"worker-1 has failed 3 times.*torch is broken"):
            wait_until_ready(settings, process)


def test_what_runs_for_a_block_ends_with_it(settings):
    said: list[str] = []

    def work():
        with running(settings, workers=0, say=said.append):
            said.append(f"{read_state(settings)['ready']}, pid {supervisor_pid(settings)}")
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert supervisor_pid(settings) is None
    ready, inside, stopped = said
    assert (ready, stopped) == ("ready, with no workers", "stopped")
    assert inside.startswith("True, pid ")
    with pytest.raises(ProcessLookupError):
        os.kill(int(inside.rpartition(" ")[2]), 0)


def test_what_another_user_runs_is_not_stopped(settings, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with supervisor_lock(settings):
        monkeypatch.setattr(os, "kill", refuse)
        with pytest.raises(GenmillError, match="is run by another user"):
            down(settings)


def test_the_lock_goes_with_a_killed_holder(settings):
    program = """
import sys, time
from pathlib import Path
from scheduler.machine.home import supervisor_lock
from worker.settings import Settings
with supervisor_lock(Settings(_env_file=None, home=Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", program, str(settings.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert supervisor_pid(settings) == other.pid
        other.kill()
    with supervisor_lock(settings):
        assert supervisor_pid(settings) == os.getpid()


def test_looking_for_a_supervisor_makes_nothing(settings):
    assert supervisor_pid(settings) is None
    assert read_state(settings) == {}
    assert not settings.home.exists()


def test_a_state_that_was_cut_short_reads_as_none(settings):
    create_home(settings)
    write_state(settings, {"pid": 1})
    assert read_state(settings) == {"pid": 1}
    (settings.home / "run" / "state.json").write_text('{"pid"')
    assert read_state(settings) == {}


def test_a_new_home_is_for_its_owner_alone(settings):
    create_home(settings)
    assert settings.home.stat().st_mode & 0o077 == 0


def test_a_home_that_cannot_be_written_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="set GENMILL_HOME"):
        create_home(Settings(_env_file=None, home=tmp_path / "file" / "home"))


def test_status_says_that_a_database_of_another_version_needs_an_upgrade(settings):
    create_home(settings)
    schema.upgrade(settings.database)
    with closing(sqlite3.connect(settings.home / "genmill.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        connection.commit()
    assert "run `genmill db upgrade`" in status(settings)["database"]


def test_status_says_that_the_embedded_broker_is_not_running(settings):
    create_home(settings)
    assert status(settings)["broker"] == "not running; `genmill up` starts it"
