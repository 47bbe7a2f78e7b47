"""The child process of a worker: its boot, its row in the database, and the doorbells it answers.

Everything heavy is imported here, after the fork, so that the parent stays small and never touches
a GPU.
"""

import gc
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.exceptions import Reject
from sqlalchemy.orm import Session

from db import workers
from db.columns import new_id
from db.errors import Draining, GenmillError, Refused
from worker.failpoints import reach, strike_parent_too
from worker.log import surviving
from worker.services import Services
from worker.services.dead_workers import end_life, reap_dead_workers, show_life
from worker.settings import Settings
from worker.shards.scratch import scratch, sweep
from worker.shared_memory import SharedState

if TYPE_CHECKING:
    from worker.shards.context import WorkerContext

log = logging.getLogger(__name__)

MAX_BEAT_S = 5.0
STOP_S = 10.0  # how long a worker that ends waits for its last word to be recorded
GC_OBJECTS = 5_000  # new ones, between two collections


class Child:
    """Made in the parent, used in the child: `begin` runs there after the fork."""

    def __init__(self, settings: Settings, shared: SharedState) -> None:
        self.settings = settings
        self.shared = shared
        self.boot_id = ""
        self._context: WorkerContext | None = None
        self._ended = threading.Event()
        self._presence: threading.Thread | None = None

    def begin(self, **_: Any) -> None:
        """Boot. If that fails, log why and have the parent end the worker."""
        # the parent handles signals; one sent to the whole group must not end the running shard
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.shared.pulse()
        strike_parent_too()
        try:
            reach(self.settings, "booting")
            self._boot()
        except BaseException as error:  # Celery would log it and keep a child that cannot work
            text = (
                str(error)
                if isinstance(error, GenmillError)
                else f"{type(error).__name__}: {error}"
            )
            reason = text.partition("\n")[0]
            log.error(  # noqa: TRY400 - a line is enough; the traceback is for debugging
                "the worker cannot start: %s", reason, exc_info=log.isEnabledFor(logging.DEBUG)
            )
            self.shared.fail_boot(reason, refused=isinstance(error, Refused))
            os.kill(os.getppid(), signal.SIGTERM)

    def _boot(self) -> None:
        services = Services(self.settings)
        # of the child before this one, or of those before this worker: others need not wait for us
        with surviving(log, "dead workers were not looked for"):
            reap_dead_workers(services)
        import torch  # noqa: PLC0415 - in the child alone

        from worker.engine.device import deterministic, pick_device  # noqa: PLC0415 - as above
        from worker.engine.threads import choose_up_to  # noqa: PLC0415 - as above
        from worker.shards.context import WorkerContext  # noqa: PLC0415 - torch, as above

        deterministic()  # before torch starts its threads, which inherit how denormals are treated
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        else:
            choose_up_to(torch.get_num_threads())
        device = pick_device(self.settings.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        context = WorkerContext(services, device)
        sweep(self.settings.home / "work")
        with scratch(self.settings.home / "work"):  # if this fails, every shard would fail
            pass
        self.boot_id = new_id()  # new at each boot: hosts and process ids are used again
        show_life(self.settings.home, self.boot_id)
        self._presence = threading.Thread(
            target=self._keep_present,
            args=(context, f"{device} {name}".rstrip()[:60]),
            name="presence",
            daemon=True,
        )
        self._presence.start()
        self._context = context
        # else each full collection would walk a quarter of a million objects of modules: 0.2 s
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_OBJECTS)

    def end(self, **_: Any) -> None:
        """Record that this worker has stopped."""
        self._ended.set()
        if self._presence is not None:
            self._presence.join(STOP_S)
        end_life(self.settings.home, self.boot_id)

    def work(self, shard_id: object) -> None:
        """Answer a doorbell. Doorbells are not trusted: all but a shard's id is dropped.

        Raises Celery's `Reject`, which puts the doorbell back into the queue, if this worker takes
        no more work.
        """
        from worker.shards.attempt import work  # noqa: PLC0415 - torch, in the child alone

        try:
            is_id = isinstance(shard_id, str) and str(uuid.UUID(shard_id)) == shard_id
        except ValueError:
            is_id = False
        if not is_id:
            log.warning("dropped a doorbell that is not a shard's id: %.80r", shard_id)
            return
        reach(self.settings, "received")
        try:
            if self._context is None or self.shared.draining:
                raise Draining
            work(self._context, str(shard_id), owner=self.boot_id, shared=self.shared)
        except Draining as stop:
            raise Reject(stop, requeue=True) from None
        except GenmillError as error:  # met while claiming; the doorbell is rung again
            log.warning("nothing more was claimed: %s", error)

    def _keep_present(self, context: "WorkerContext", device: str) -> None:
        """Write the worker's row: its start, heartbeats and stop, when the database is there."""
        services = context.services
        start = partial(
            workers.start,
            boot_id=self.boot_id,
            host=socket.gethostname(),
            pid=os.getppid(),
            device=device,
        )
        beat = partial(self._beat, context)
        step: Callable[[Session], None] = start
        due = time.monotonic()
        while True:
            if time.monotonic() >= due:
                # the thread must live: without its pulse, the watchdog would kill the child
                with surviving(log, "the worker's row was not written"):
                    services.database.transact(step)
                    step = beat
                due = time.monotonic() + context.beat_pause_s(MAX_BEAT_S) - MAX_BEAT_S
            if self._ended.wait(min(self.settings.lease_s / 4, MAX_BEAT_S)):
                break
            self.shared.pulse()
        with surviving(log, "the worker's stop was not written"):
            services.database.transact(partial(workers.stop, boot_id=self.boot_id))

    def _beat(self, context: "WorkerContext", session: Session) -> None:
        context.live_workers = workers.beat(session, self.boot_id)
