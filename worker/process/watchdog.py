"""The parent's watchdog: ends what cannot recover by itself.

A child whose threads have all stopped is killed, and Celery starts another. A worker that stays
idle although the queue is not empty (celery issue 10302) ends, and its supervisor restarts it.
"""

import contextlib
import logging
import os
import signal
import threading
import time

from celery.worker import state
from redis import Redis
from redis.exceptions import RedisError

from worker.broker.app import KEY_PREFIX, QUEUE
from worker.broker.channel import Channel
from worker.log import surviving
from worker.settings import Settings
from worker.shared_memory import SharedState
from worker.watched import end_process

log = logging.getLogger(__name__)

PERIOD_S = 5.0
IDLE_S = 60.0  # an idle worker takes a message at once; Celery reconnects within 32 s


class Watchdog(threading.Thread):
    """A thread of the parent that runs until the process ends."""

    def __init__(
        self,
        settings: Settings,
        shared: SharedState,
        *,
        period_s: float = PERIOD_S,
        idle_s: float = IDLE_S,
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._shared = shared
        self._hang_s = settings.hang_s
        self._period_s = period_s
        self._idle_s = idle_s
        self._queue = Redis.from_url(
            settings.broker_client, socket_timeout=PERIOD_S, socket_connect_timeout=PERIOD_S
        )
        self._idle_since: float | None = None

    def run(self) -> None:
        """Check the child and the queue every `period_s`."""
        while not self._shared.draining:
            time.sleep(self._period_s)
            for check in (self._check_child, self._check_queue):
                with surviving(log, "the watchdog could not look"):
                    check()

    def _check_child(self) -> None:
        if self._shared.child_pid and self._shared.silent_s > self._hang_s:
            log.error("killing the child %d, which is stuck", self._shared.child_pid)
            with contextlib.suppress(ProcessLookupError):  # dead, and no other has booted
                os.kill(self._shared.child_pid, signal.SIGKILL)
            self._shared.forget_child()

    def _check_queue(self) -> None:
        try:
            idle = not state.reserved_requests and self._queue.llen(KEY_PREFIX + QUEUE)
        except RedisError:  # Celery reconnects by itself
            idle = False
        if not idle:
            self._idle_since = None
            return
        now = time.monotonic()
        # one that drops what is no doorbell, as fast as it comes, is not deaf
        self._idle_since = max(self._idle_since or now, Channel.heard_at)
        if now - self._idle_since > self._idle_s:
            end_process("idle although the queue is not empty")
