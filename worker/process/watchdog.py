"""The parent's eye on its child and its queue. It ends what cannot be mended from inside.

A child whose threads have all stopped is killed, and Celery starts another. A worker that sits idle
beside a queue that is not empty (celery issue 10302) ends itself: its supervisor starts it again.
"""

import logging
import os
import signal
import threading
import time

from celery.worker import state
from redis import Redis
from redis.exceptions import RedisError

from worker.broker.app import KEY_PREFIX, QUEUE
from worker.settings import Settings
from worker.shared_memory import Wire

log = logging.getLogger(__name__)

PERIOD_S = 5.0
DEAF_S = 60.0  # an idle worker takes a message at once; Celery connects again within 32 s
START_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


class Watchdog(threading.Thread):
    """Runs in the parent until the process ends."""

    def __init__(
        self, settings: Settings, wire: Wire, *, period_s: float = PERIOD_S, deaf_s: float = DEAF_S
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._wire = wire
        self._hang_s = settings.hang_s
        self._period_s = period_s
        self._deaf_s = deaf_s
        self._queue = Redis.from_url(
            settings.broker_client, socket_timeout=PERIOD_S, socket_connect_timeout=PERIOD_S
        )
        self._deaf_since: float | None = None

    def run(self) -> None:
        """Look around every few seconds."""
        while not self._wire.draining:
            time.sleep(self._period_s)
            self._look_at_child()
            self._look_at_queue()

    def _look_at_child(self) -> None:
        if self._wire.pid and self._wire.silent_s > self._hang_s:
            log.error("the child %d is stuck and is killed", self._wire.pid)
            os.kill(self._wire.pid, signal.SIGKILL)
            self._wire.forget()

    def _look_at_queue(self) -> None:
        if state.reserved_requests or not self._waiting():
            self._deaf_since = None
            return
        now = time.monotonic()
        self._deaf_since = self._deaf_since or now
        if now - self._deaf_since > self._deaf_s:
            log.error("idle beside a queue that is not empty: ending, to be started again")
            os._exit(START_AGAIN)

    def _waiting(self) -> bool:
        try:
            return bool(self._queue.llen(KEY_PREFIX + QUEUE))
        except RedisError:
            return False  # Celery connects again by itself
