"""Points where a process crashes or waits on purpose, so that tests can show that nothing is lost.

`GENMILL_FAILPOINT=put_after` kills the worker, parent and child, when it reaches that point. The
points of a shard, in order: `claimed`, `put_after`, `committed`.

A scheduler is killed at `chain_pinned` and `chain_released`, before and after it queues a job that
waited for another.

With `GENMILL_FAILPOINT=hold` the work pauses between two steps as long as the worker's home has a
file `hold`, so that a test has time to act while a shard is running.
"""

import os
import signal
import time
from collections.abc import Callable

from worker.settings import Settings

HOLD = "hold"
POLL_S = 0.02


def crash_at(settings: Settings, name: str) -> None:
    """Kill the worker if the settings name this point."""
    if settings.failpoint == name:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def end_at(settings: Settings, name: str) -> None:
    """Kill this process alone if the settings name this point."""
    if settings.failpoint == name:
        os.kill(os.getpid(), signal.SIGKILL)


def wait_while_held(settings: Settings, *, until: Callable[[], object]) -> None:
    """Wait while the file is there, but not beyond the moment that `until` becomes true."""
    while settings.failpoint == HOLD and (settings.home / HOLD).exists() and not until():
        time.sleep(POLL_S)
