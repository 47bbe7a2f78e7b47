"""Threads that are watched: whether they get on, how they end, and the end of their process."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from worker.isolation import Isolated
from worker.watched import Watched, pulse

ROOT = Path(__file__).parents[3]
ENDING = """
import logging, threading, time
from worker.watched import Watched, end_process

def waits_for_a_lock():
    threading.Event().wait()

logging.basicConfig(format="%(message)s")
thread = Watched("a step", waits_for_a_lock)
thread.start()
time.sleep(0.2)
end_process("a step has hung for 1 s", stuck=thread)
"""


def test_it_tells_how_it_ended() -> None:
    good, bad = Watched("good", lambda: 7), Watched("bad", lambda: {}["none"])
    for each in (good, bad):
        each.start()
        each.join()
    assert (good.outcome(), good.silent_s) == (7, 0)
    with pytest.raises(KeyError):
        bad.outcome()


def test_it_is_silent_until_it_gets_on() -> None:
    goes_on, has_gone_on, ends = (threading.Event() for _ in range(3))

    def act() -> None:
        goes_on.wait()
        with Isolated():
            has_gone_on.set()
        ends.wait()

    thread = Watched("step", act)
    thread.start()
    thread.pulsed_at -= 100
    assert thread.silent_s >= 100
    goes_on.set()
    has_gone_on.wait()
    assert thread.silent_s < 100
    ends.set()
    thread.join()


def test_a_pulse_of_a_thread_that_nobody_watches_is_nothing() -> None:
    pulse()


def test_the_end_of_a_process_says_why_and_where_it_was_stuck() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDING], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False
    )
    assert ended.returncode == os.EX_TEMPFAIL
    assert "a step has hung for 1 s: the process ends, to be started again" in ended.stderr
    assert "in waits_for_a_lock" in ended.stderr
