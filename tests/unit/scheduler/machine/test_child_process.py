import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler.machine.child_process import ChildProcess
from scheduler.machine.rotating_log import LIMIT_BYTES

PATIENCE_S = 30.0


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., ChildProcess]]:
    """Make a child of a Python program; whatever still runs is killed at the end."""
    made = []

    def make(program: str, stdin: bytes = b"") -> ChildProcess:
        command = [sys.executable, "-c", program]
        made.append(ChildProcess("one", command, dict(os.environ), tmp_path / "one.log", stdin))
        return made[-1]

    yield make
    for each in made:
        each.kill()


def until(happens: Callable[[], object]) -> object:
    deadline = time.monotonic() + PATIENCE_S
    while not (result := happens()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return result


def lives(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_ends_is_started_again_after_a_growing_pause(child):
    one = child("raise SystemExit(3)")
    one.start()
    events = [until(one.keep_alive) for _ in range(3)]
    assert "exit code 3" in events[0]
    assert "restarts in 0.5 s" in events[0]
    assert "restarted" in events[1]
    assert "restarts in 1 s" in events[2]
    assert one.restarts == 1


def test_a_killed_child_is_told_by_its_signal(child):
    one = child("import time; time.sleep(60)")
    one.start()
    os.kill(one.pid, signal.SIGKILL)
    assert "SIGKILL" in until(one.keep_alive)


def test_a_child_reads_its_input_and_its_output_is_logged(child):
    one = child("import sys; print('got', sys.stdin.read())", stdin=b"a secret")
    one.start()
    assert until(lambda: one.wait_until(time.monotonic() + PATIENCE_S))
    assert one.log.read_text() == "got a secret\n"
    assert one.log.stat().st_mode & 0o077 == 0


def test_a_killed_child_takes_its_own_children_with_it(child):
    one = child(
        "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
    )
    one.stdin = b""
    one.command[-1] = one.command[-1].replace("input()", "import time; time.sleep(60)")
    one.start()
    grandchild = int(until(lambda: one.log.read_text().strip()))
    one.kill()
    until(lambda: not lives(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path):
    program = f"""
import os, sys, time
from pathlib import Path
from scheduler.machine.child_process import ChildProcess
one = ChildProcess("one", ["sleep", "60"], dict(os.environ), Path({str(tmp_path / "one.log")!r}))
one.start()
print(one.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    with parent:
        child = int(parent.stdout.readline())
        assert lives(child)
        parent.kill()
    until(lambda: not lives(child))


def test_the_log_of_a_child_rotates_while_it_runs_and_holds_its_last_words(child):
    one = child(
        "import sys\n"
        "for number in range(700_000): print(f'line {number:015}')\n"
        "sys.stdout.flush()\n"
        "sys.exit('its last words')\n"
    )
    one.start()
    assert until(lambda: one.wait_until(time.monotonic() + PATIENCE_S))
    *lines, last = one.log.read_text().splitlines()
    older = one.log.with_name("one.log.1").read_text().splitlines()
    assert last == "its last words"
    assert [int(line.split()[1]) for line in [*older, *lines]] == list(range(700_000))
    assert one.log.stat().st_size < LIMIT_BYTES


def test_a_child_whose_log_cannot_be_written_is_not_started(child):
    one = child("")
    one.log.mkdir()
    with pytest.raises(IsADirectoryError):
        one.start()
