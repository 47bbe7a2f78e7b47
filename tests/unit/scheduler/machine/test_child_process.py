import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scheduler.machine.child_process import LOG_BYTES, Child, fresh_log

PATIENCE_S = 30.0


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Make a child of a Python program; whatever still runs is killed at the end."""
    made = []

    def make(program: str, inherit: bytes = b"") -> Child:
        command = [sys.executable, "-c", program]
        made.append(Child("one", command, dict(os.environ), tmp_path / "one.log", inherit))
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
    events = [until(one.tend) for _ in range(3)]
    assert "exit code 3" in events[0]
    assert "starts again in 0.5 s" in events[0]
    assert "started again" in events[1]
    assert "starts again in 1 s" in events[2]
    assert one.restarts == 1


def test_a_killed_child_is_told_by_its_signal(child):
    one = child("import time; time.sleep(60)")
    one.start()
    os.kill(one.pid, signal.SIGKILL)
    assert "SIGKILL" in until(one.tend)


def test_a_child_finds_what_it_inherits_and_what_it_says_is_logged(child):
    one = child("import sys; print('got', sys.stdin.read())", inherit=b"a secret")
    one.start()
    assert until(lambda: one.gone_by(time.monotonic() + PATIENCE_S))
    assert one.log.read_text() == "got a secret\n"
    assert one.log.stat().st_mode & 0o077 == 0


def test_a_killed_child_takes_its_own_children_with_it(child):
    one = child(
        "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
    )
    one.inherit = b""
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
from scheduler.machine.child_process import Child
one = Child("one", ["sleep", "60"], dict(os.environ), Path({str(tmp_path / "one.log")!r}))
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


def test_a_large_log_is_put_aside_before_it_grows_on(tmp_path):
    log = tmp_path / "one.log"
    log.write_bytes(b"x" * (LOG_BYTES + 1))
    fresh_log(log).close()
    assert (log.stat().st_size, (tmp_path / "one.log.1").stat().st_size) == (0, LOG_BYTES + 1)
