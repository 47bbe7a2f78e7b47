"""A confined program answers the request that it was asked, whatever happened to the one before."""

import os
import resource
import signal
import threading

import pytest

from db.causes import Cause, cause_of
from worker.confined import Confined, Interrupted, TooMuch

PROGRAM = """import os, time
def answer(it):
    time.sleep(it.get('sleep', 0))
    while it.get('spin'):
        pass
    if it.get('crash'):
        os.abort()
    return it
"""


@pytest.fixture
def echo(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    made = Confined(tmp_path / "program.py", cpu_s=5, memory_bytes=1 << 30)
    yield made
    made.close()


@pytest.fixture
def many_files():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2048), before[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for each in opened:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_answers_however_many_files_are_open(echo, many_files):
    assert echo.ask({"n": 1}) == {"n": 1}


def test_an_answer_that_nobody_waits_for_is_not_the_next_one_s(echo):
    assert echo.ask({"n": 1}) == {"n": 1}

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            echo.ask({"n": 2, "sleep": 0.5})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert echo.ask({"n": 3}) == {"n": 3}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_others_end_says_nothing_of_its_program(echo, number):
    """The kernel's choice where memory is short, or a service that is stopped with all of it."""
    assert echo.ask({"n": 1}) == {"n": 1}
    killing = threading.Timer(0.2, os.kill, [echo._process.pid, number])
    killing.start()
    with pytest.raises(Interrupted, match=number.name) as met:
        echo.ask({"sleep": 10})
    killing.join()
    assert cause_of(met.value) is Cause.MACHINE
    assert not met.value.lasting
    assert echo.ask({"n": 2}) == {"n": 2}


def test_a_process_that_was_killed_while_nobody_asked_is_replaced(echo):
    assert echo.ask({"n": 1}) == {"n": 1}
    os.kill(echo._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, echo._process.pid, os.WEXITED | os.WNOWAIT)
    assert echo.ask({"n": 2}) == {"n": 2}


@pytest.mark.parametrize("size", [1, 1 << 20])  # the larger one does not fit into the pipe
def test_a_process_that_is_frozen_says_nothing_of_its_program(tmp_path, size):
    (tmp_path / "program.py").write_text(PROGRAM)
    made = Confined(tmp_path / "program.py", cpu_s=5, memory_bytes=1 << 30, wall_s=2)
    assert made.ask({"n": 1}) == {"n": 1}
    os.kill(made._process.pid, signal.SIGSTOP)
    with pytest.raises(Interrupted, match="has not answered for 2 s"):
        made.ask({"n": "2" * size})
    assert made.ask({"n": 3}) == {"n": 3}
    made.close()


def test_a_program_that_spins_or_crashes_is_at_fault_itself(echo):
    with pytest.raises(TooMuch, match=r"more than 0\.2 s"):
        echo.ask({"spin": True}, cpu_s=0.2)
    with pytest.raises(TooMuch, match="crashes"):
        echo.ask({"crash": True})
    assert echo.ask({"n": 1}) == {"n": 1}
