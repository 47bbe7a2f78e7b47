"""The child process of a worker: its boot, its presence on record, and the doorbells it answers.

Everything heavy is imported here, after the fork, so that the parent stays small and never touches
a GPU.
"""

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from db import workers
from db.errors import GenmillError
from db.tables import new_id
from worker.services import Services
from worker.settings import Settings
from worker.shards.scratch import sweep
from worker.shared_memory import Wire

if TYPE_CHECKING:
    from worker.shards.context import WorkerContext

log = logging.getLogger(__name__)

MAX_BEAT_S = 5.0


class Child:
    """Made in the parent, alive in the child: `begin` runs there after the fork."""

    def __init__(self, settings: Settings, wire: Wire) -> None:
        self.settings = settings
        self.wire = wire
        self.boot_id = ""
        self._bench: WorkerContext | None = None
        self._ended = threading.Event()
        self._presence: threading.Thread | None = None

    def begin(self, **_: Any) -> None:
        """Boot: a fresh id, so that a name used again hides nothing; services; the device."""
        # the parent takes the signals; one for the whole group must not end the work at hand
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.wire.pulse()
        try:
            self.boot_id = new_id()
            self._bench = self._make_bench()
            sweep(self.settings.home / "work")
        except GenmillError as error:
            log.error("the worker cannot work: %s", error)  # noqa: TRY400 - the text says it all
            self.wire.give_up()
            os.kill(os.getppid(), signal.SIGTERM)
            return
        self._presence = threading.Thread(
            target=self._be_present, args=(self._bench,), name="presence", daemon=True
        )
        self._presence.start()

    def end(self, **_: Any) -> None:
        """Leave in good order."""
        self._ended.set()
        if self._presence is not None:
            self._presence.join()

    def work(self, shard_id: object) -> None:
        """Answer a doorbell. What it says is not trusted: anything but a shard's id is dropped."""
        from worker.shards.attempt import work  # noqa: PLC0415 - torch, in the child alone

        if self.wire.draining or self._bench is None:
            return
        if not _is_id(shard_id):
            log.warning("a doorbell without a shard's id was dropped: %.80r", shard_id)
            return
        work(self._bench, str(shard_id), owner=self.boot_id, wire=self.wire)

    def _make_bench(self) -> "WorkerContext":
        import torch  # noqa: PLC0415 - in the child alone

        from worker.engine.device import deterministic, pick_device  # noqa: PLC0415 - as above
        from worker.shards.context import WorkerContext  # noqa: PLC0415 - torch, as above

        deterministic()  # before torch starts its threads, which take over how tiny numbers count
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)
        return WorkerContext(Services(self.settings), pick_device(self.settings.device))

    def _be_present(self, bench: "WorkerContext") -> None:
        """Keep the worker's row fresh from start to stop, as far as the database allows."""
        record = bench.services.database.transact
        host, device = socket.gethostname(), _describe(bench)

        def start(session: Session) -> None:
            workers.start(session, boot_id=self.boot_id, host=host, pid=os.getppid(), device=device)

        known = _written(record, start)
        while not self._ended.wait(min(self.settings.lease_s / 4, MAX_BEAT_S)):
            self.wire.pulse()
            if known:
                _written(record, lambda session: workers.beat(session, self.boot_id))
            else:
                known = _written(record, start)
        _written(record, lambda session: workers.stop(session, self.boot_id))


def _written(
    record: Callable[[Callable[[Session], None]], None], step: Callable[[Session], None]
) -> bool:
    try:
        record(step)
    except GenmillError as error:
        log.warning("the worker's row was not written: %s", error)
        return False
    return True


def _describe(bench: "WorkerContext") -> str:
    """The device with its name, as `cuda:0 NVIDIA H200`, for people."""
    import torch  # noqa: PLC0415 - in the child alone

    if bench.device.type != "cuda":
        return str(bench.device)
    return f"{bench.device} {torch.cuda.get_device_name(bench.device)}"[:60]


def _is_id(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False
