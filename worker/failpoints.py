"""Places where a worker can be made to die, to show that nothing is lost there.

`GENMILL_FAILPOINT=put_after` kills the worker, parent and child, when it gets there. The points, in
the order of a shard: `claimed`, `put_after`, `committed`.
"""

import os
import signal

from worker.settings import Settings


def pass_by(settings: Settings, name: str) -> None:
    """Die here if the settings say so."""
    if settings.failpoint == name:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
