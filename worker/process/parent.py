"""The worker process: Celery's parent, around the one child that does the work.

The parent receives doorbells and signals and imports nothing heavy. SIGTERM, SIGINT, SIGQUIT and
SIGHUP drain the worker: the child saves its work and gives the shard back, then both end.
"""

import logging
import os
import signal
import socket
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning, WorkerLostError
from celery.worker import state
from celery.worker.consumer import Consumer
from redis.exceptions import ConnectionError as BrokerError

from db.errors import GenmillError, Refused
from worker.broker.app import QUEUE, TASK, celery_app
from worker.log import set_up_logging
from worker.process.child import Child
from worker.process.watchdog import Watchdog
from worker.settings import Settings, limit_threads
from worker.shared_memory import SharedState

log = logging.getLogger(__name__)


class Listener(Consumer):  # type: ignore[misc] # Celery has no types
    """Celery's consumer, which connects again whatever goes wrong with its connection.

    After an error that it does not expect, Celery's own ends the worker, and with it the shard that
    its child is running.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        listen: Callable[..., None] = self.loop  # type: ignore[has-type] # as above
        expected = (WorkerLostError, *self.connection_errors, *self.channel_errors)

        def loop(*arguments: Any) -> None:
            try:
                listen(*arguments)
            except expected:
                raise
            except Exception as error:
                log.exception("the worker connects to the broker again")
                raise BrokerError(str(error)) from error

        self.loop = loop


def run_worker(settings: Settings) -> None:
    """Run one worker until a signal has drained it.

    Raises `Refused` if it cannot work with these settings, and `Unreachable` if no broker is known;
    it waits for a broker that is known and down. Raises `GenmillError` if it should be started
    again, because its child could not boot or Celery ended. A worker that finds itself stuck ends
    the process with exit code 75, for the same reason.
    """
    set_up_logging(settings)
    # Celery warns root of pickled messages; ours are JSON, and their content is checked
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # recommends worker_cancel_long_running_tasks_on_connection_loss, which would kill shards
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    limit_threads(settings.threads)
    shared = SharedState()
    worker = _celery_worker(_app(settings, Child(settings, shared)))

    def drain(_number: int, _frame: FrameType | None) -> None:
        shared.drain()
        state.should_stop = 0  # tells Celery's loop to take nothing new, wait for the child and end

    def handle_signals(_worker: object) -> None:
        # in place of Celery's handlers, whose cold shutdown kills the child without a warning
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, drain)

    worker.install_platform_tweaks = handle_signals
    Watchdog(settings, shared).start()
    log.info("worker started", extra={"pid": os.getpid()})
    worker.start()
    log.info("worker stopped", extra={"pid": os.getpid()})
    if shared.boot_failed:
        kind = Refused if shared.refused else GenmillError
        raise kind(f"the worker cannot start: {shared.boot_error}")
    if not shared.draining:
        raise GenmillError("the worker ended by itself", remedy="read its log and start it again")


def _celery_worker(app: Celery) -> Any:
    return app.Worker(
        hostname=f"genmill-{os.getpid()}@{socket.gethostname()}",
        pool="prefork",
        consumer_cls=Listener,
        queues=[QUEUE],
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )


def _app(settings: Settings, child: Child) -> Celery:
    """The app with our one task and no other, because the broker is not trusted."""
    app = celery_app(settings)
    app.task(child.work, name=TASK)
    app.finalize()
    for name in set(app.tasks) - {TASK}:
        app.tasks.unregister(name)
    # without a receiver for this signal, Celery would set up its own logging
    signals.setup_logging.connect(lambda **_: None, weak=False)
    signals.worker_process_init.connect(child.begin, weak=False)
    signals.worker_process_shutdown.connect(child.end, weak=False)
    return app
