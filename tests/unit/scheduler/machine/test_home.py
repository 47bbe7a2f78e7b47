import os
import subprocess
import sys
from pathlib import Path

import pytest

from db.errors import GenmillError, Refused, Unreachable
from scheduler.machine.home import (
    holder,
    make_home,
    only_one,
    read_state,
    write_failure,
    write_state,
)
from scheduler.machine.system import wait_until_ready
from worker.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, home=tmp_path / "home")


def test_a_home_has_one_supervisor(settings):
    with only_one(settings):
        assert holder(settings) == os.getpid()
        with pytest.raises(Refused, match=f"pid {os.getpid()}"), only_one(settings):
            pass
    assert holder(settings) is None


def ended(program: str, *arguments: str) -> subprocess.Popen:
    """A Python process that has ended."""
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as process:
        process.wait()
    return process


def test_the_second_of_two_started_at_once_is_told_of_the_first(settings):
    with only_one(settings), pytest.raises(Refused, match=f"already runs.*pid {os.getpid()}"):
        wait_until_ready(settings, ended(""))


def test_a_start_that_fails_raises_the_same_error_as_the_process(settings):
    program = """
import sys
from pathlib import Path
from scheduler.machine.home import make_home, write_failure
from worker.settings import Settings
settings = Settings(_env_file=None, home=Path(sys.argv[1]))
make_home(settings)
write_failure(settings, "no answer; or none in time", "start it")
sys.exit(3)
"""
    with pytest.raises(Unreachable) as raised:
        wait_until_ready(settings, ended(program, str(settings.home)))
    assert (raised.value.message, raised.value.remedy) == ("no answer; or none in time", "start it")


def test_a_start_that_crashes_points_to_the_log(settings):
    make_home(settings)
    write_failure(settings, "of another process", None)
    with pytest.raises(GenmillError, match=r"ended with exit code 1; see .*up\.log"):
        wait_until_ready(settings, ended("raise SystemExit(1)"))


def test_the_lock_goes_with_a_killed_holder(settings):
    program = """
import sys, time
from pathlib import Path
from scheduler.machine.home import only_one
from worker.settings import Settings
with only_one(Settings(_env_file=None, home=Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", program, str(settings.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert holder(settings) == other.pid
        other.kill()
    with only_one(settings):
        assert holder(settings) == os.getpid()


def test_looking_for_a_supervisor_makes_nothing(settings):
    assert holder(settings) is None
    assert read_state(settings) == {}
    assert not settings.home.exists()


def test_a_state_that_was_cut_short_reads_as_none(settings):
    make_home(settings)
    write_state(settings, {"pid": 1})
    assert read_state(settings) == {"pid": 1}
    (settings.home / "run" / "state.json").write_text('{"pid"')
    assert read_state(settings) == {}


def test_a_new_home_is_for_its_owner_alone(settings):
    make_home(settings)
    assert settings.home.stat().st_mode & 0o077 == 0


def test_a_home_that_cannot_be_written_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="set GENMILL_HOME"):
        make_home(Settings(_env_file=None, home=tmp_path / "file" / "home"))
