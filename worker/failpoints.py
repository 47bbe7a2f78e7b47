"""Points where a worker crashes or waits on purpose, so that tests can show that nothing is lost.

`GENMILL_FAILPOINT=put_after` kills the worker, parent and child, when it gets there. The points, in
the order that a shard meets them: `claimed`, `put_after`, `committed`.

With `GENMILL_FAILPOINT=hold` the work waits between two steps while there is a file `hold` in the
worker's home, so that a test has time to act while a shard is under way.
"""

import os
import signal
import time
from collections.abc import Callable

from worker.settings import Settings

HOLD = "hold"
POLL_S = 0.02


def crash_at(settings: Settings, name: str) -> None:
    """Kill the worker here if the settings name this point."""
    if settings.failpoint == name:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def wait_while_held(settings: Settings, *, until: Callable[[], object]) -> None:
    """Wait here while the settings and the file say so, unless `until` comes true first."""
    while settings.failpoint == HOLD and (settings.home / HOLD).exists() and not until():
        time.sleep(POLL_S)
