"""What a worker's parent and child tell each other."""

import os
import time

import pytest

from worker.shared_memory import SharedState


def in_a_child(step):
    """Run `step` in a forked process, wait for its end, and return its process id."""
    pid = os.fork()
    if pid == 0:
        step()
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


@pytest.mark.parametrize("refused", [True, False])
def test_a_child_sees_the_drain_and_its_parent_sees_that_the_boot_failed(refused) -> None:
    shared = SharedState()
    assert not shared.draining
    shared.drain()
    assert shared.draining
    reason = "no such device: über " + "x" * 3000
    in_a_child(lambda: shared.fail_boot(reason, refused=refused) if shared.draining else None)
    assert shared.boot_failed
    assert shared.boot_error == reason.encode()[:2048].decode()
    assert shared.refused is refused


def test_a_parent_sees_which_child_is_alive() -> None:
    shared = SharedState()
    assert shared.child_pid == 0
    child = in_a_child(shared.pulse)
    assert shared.child_pid == child
    before = shared.silent_s
    time.sleep(0.01)
    assert shared.silent_s > before
    shared.forget_child()
    assert shared.child_pid == 0
