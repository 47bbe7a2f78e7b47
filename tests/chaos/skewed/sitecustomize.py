"""A machine whose clock is wrong: on PYTHONPATH, this shifts `time.time` by CHAOS_SKEW_S seconds.

Celery, kombu and UUIDv7 read `time`; no decision of Genmill may.
"""

import os
import time

_SKEW_S = float(os.environ.get("CHAOS_SKEW_S", "0"))


def _moved(read, by):
    return lambda: read() + by


time.time = _moved(time.time, _SKEW_S)
time.time_ns = _moved(time.time_ns, int(_SKEW_S * 1e9))
