"""Steps of a round that hang: told, left behind, and ended with the process if nothing helps."""

import threading
import time

import pytest

from db import setbacks
from scheduler.dispatch import loop, rounds
from scheduler.dispatch.loop import run_scheduler
from scheduler.dispatch.rounds import run_round
from scheduler.dispatch.step_threads import Hangs, StepThreads
from tests.shards import add_job, claim
from worker.watched import Watched, pulse

STEP_S = 0.5  # of steps that do nothing
PATIENT_S = 3.0  # of real ones, on a busy machine


class Hanging:
    """A step that hangs until it is released; `calls` counts."""

    def __init__(self) -> None:
        self.calls = 0
        self._released = threading.Event()

    def __call__(self, *_: object) -> int:
        self.calls += 1
        self._released.wait()
        return 3

    def release(self) -> None:
        """Let it end, and wait for all that goes on beside this thread."""
        self._released.set()
        for thread in threading.enumerate():
            if isinstance(thread, Watched):
                thread.join()


@pytest.fixture
def threads():
    return StepThreads(step_s=STEP_S)


@pytest.fixture
def hanging():
    made = Hanging()
    yield made
    made.release()


def told(services):
    with services.database.read() as session:
        return {each.item: each.error for each in setbacks.lasting(session, longer_than_s=-1)}


def test_a_step_that_hangs_is_told_and_keeps_no_other_from_running(
    services, hanging, monkeypatch
) -> None:
    threads = StepThreads(step_s=PATIENT_S)
    monkeypatch.setattr(rounds, "finalize_due", hanging)
    claim(services, add_job(services), lease_s=0.01)
    time.sleep(0.05)
    counts = run_round(services, threads.run)
    assert (counts.reaped, counts.finalized, counts.rung) == (1, 0, 1)
    assert "it has hung for more than 3 s; the round goes on" in told(services)["finishing jobs"]
    began = time.monotonic()
    add_job(services)
    assert run_round(services, threads.run).rung == 1
    assert time.monotonic() - began < 30
    assert hanging.calls == 1
    hanging.release()
    assert run_round(services, threads.run).finalized == 3
    assert told(services) == {}


def test_a_step_that_takes_long_and_gets_on_is_left_alone(threads) -> None:
    ends = threading.Event()

    def long_one() -> int:
        while not ends.wait(STEP_S / 20):
            pulse()
        return 5

    assert [threads.run("long", long_one) for _ in range(2)] == [0, 0]
    assert threads.has("long")
    ends.set()
    [thread] = threads.running()
    thread.join()
    assert threads.run("long", long_one) == 5
    assert not threads.has("long")


def test_what_a_step_raises_is_raised_to_the_round(threads, hanging) -> None:
    with pytest.raises(KeyError):
        StepThreads().run("broken", lambda: {}["none"])
    for _ in range(2):
        with pytest.raises(Hangs):
            threads.run("hanging", hanging)
    hanging.release()
    assert threads.run("hanging", hanging) == 3


def test_a_step_that_has_hung_for_too_long_ends_the_scheduler(
    services, hanging, monkeypatch
) -> None:
    stop, ended = threading.Event(), []

    def end_process(reason, *, stuck):
        ended.append((reason, stuck.name))
        if stuck.name == "finishing jobs":
            hanging.release()
            stop.set()

    monkeypatch.setattr(loop, "end_process", end_process)
    monkeypatch.setattr(rounds, "finalize_due", hanging)
    run_scheduler(services.settings.model_copy(update={"loop_s": 0.01, "hang_s": 2}), stop)
    assert ("finishing jobs has hung for 2 s", "finishing jobs") in ended


def test_a_scheduler_that_is_told_to_stop_does_not_wait_for_a_step_that_hangs(
    services, hanging, monkeypatch
) -> None:
    stop = threading.Event()
    monkeypatch.setattr(loop, "STOP_S", 0.1)
    monkeypatch.setattr(loop, "LOOK_S", 0.05)
    monkeypatch.setattr(rounds, "finalize_due", hanging)
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    run_scheduler(services.settings, stop)
    assert time.monotonic() - began < 25  # not the 30 s that a round waits for a step
