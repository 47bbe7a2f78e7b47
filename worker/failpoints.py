"""Places where a worker can be made to die or to stand still, to show that nothing is lost there.

`GENMILL_FAILPOINT=put_after` kills the worker, parent and child, when it gets there. The points, in
the order of a shard: `claimed`, `put_after`, `committed`. With `GENMILL_FAILPOINT=hold` work stands
still between two steps while a file `hold` lies in its home: on any machine there is time to see
it under way.
"""

import os
import signal
import time
from collections.abc import Callable

from worker.settings import Settings

HOLD = "hold"
LOOK_S = 0.02


def pass_by(settings: Settings, name: str) -> None:
    """Die here if the settings say so."""
    if settings.failpoint == name:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def stand_still(settings: Settings, *, until: Callable[[], object]) -> None:
    """Wait here while the settings and the file say so, and nothing else is to be done."""
    while settings.failpoint == HOLD and (settings.home / HOLD).exists() and not until():
        time.sleep(LOOK_S)
