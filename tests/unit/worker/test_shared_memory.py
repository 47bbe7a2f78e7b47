"""What a worker's parent and child tell each other."""

import os
import time

from worker.shared_memory import Wire


def in_a_child(step):
    """Run `step` in a forked process and wait for its end."""
    pid = os.fork()
    if pid == 0:
        step()
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_child_learns_that_its_parent_drains() -> None:
    wire = Wire()
    assert not wire.draining
    wire.drain()
    assert wire.draining
    in_a_child(lambda: wire.give_up() if wire.draining else None)
    assert wire.broken


def test_a_parent_learns_which_child_lives() -> None:
    wire = Wire()
    assert wire.pid == 0
    child = in_a_child(wire.pulse)
    assert wire.pid == child
    before = wire.silent_s
    time.sleep(0.01)
    assert wire.silent_s > before
    wire.forget()
    assert wire.pid == 0
