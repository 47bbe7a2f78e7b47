"""The parent of one machine's processes: broker, scheduler and workers, kept alive and stopped.

When it is killed, the kernel kills its children (see `child_process`), and a worker's shard goes on
elsewhere once its lease has run out.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType

from db import schema, shards, workers
from db.errors import Unreachable
from scheduler.machine.broker import ping, prepare_broker
from scheduler.machine.child_process import ChildProcess
from scheduler.machine.home import log_folder, only_one, state_file, write_state
from worker.services import open_services
from worker.settings import Settings

DRAIN_S = 60.0  # how long a worker may take to save its shard; then it is killed
STOP_S = 5.0  # the broker has nothing to save
STEP_S = 0.1
BROKER_S = 15.0  # a server that has not answered by then never will

Say = Callable[[str], None]


def genmill(*words: str) -> list[str]:
    """The command line of a `genmill` process; -P keeps the working folder off the import path."""
    return [sys.executable, "-P", "-m", "scheduler", *words]


class Supervisor:
    """Starts everything, keeps it alive until SIGINT, SIGTERM or SIGHUP, then stops it all."""

    def __init__(self, settings: Settings, *, workers: int, say: Say) -> None:
        self.settings = settings
        self.workers = workers
        self.say = say
        self.stop_requests = 0  # at the second, it stops waiting and kills
        self.ready = False
        self.rung_at = 0.0  # the start of the broker that was last rung for
        self.services = open_services(settings)
        self.broker: ChildProcess | None = None
        self.children: list[ChildProcess] = []  # scheduler and workers

    def run(self) -> None:
        """Start everything, watch it, stop it. `Refused` where one already runs in this home."""
        with only_one(self.settings), self._signals():
            try:
                self._start()
                self._tend()
            finally:
                self._stop()
                self.services.close()

    def _start(self) -> None:
        # checked here, for a child would only fail again and again
        self.services.store.check()
        if self.settings.redis_url is None:
            self._start_broker()
        else:
            ping(self.settings)
        schema.upgrade(self.settings.database)
        self._ring_again()
        threads = self.settings.threads or max(1, (os.cpu_count() or 1) // self.workers)
        environment = self.settings.child_environment(threads=threads)
        self.say(f"starting in {self.settings.home.absolute()}; stop with Ctrl-C")
        names = ["scheduler", *(f"worker-{n + 1}" for n in range(self.workers))]
        for name in names:
            self.children.append(self._child(name, genmill(name.partition("-")[0]), environment))
            self.children[-1].start()
        self._write_state()

    def _start_broker(self) -> None:
        broker = prepare_broker(self.settings)
        environment = self.settings.child_environment()
        self.broker = self._child("broker", [str(broker.server), "-"], environment)
        self.broker.stdin = broker.configuration
        self.broker.start()
        deadline = time.monotonic() + BROKER_S
        while True:
            try:
                ping(self.settings, timeout_s=1)
            except Unreachable:
                if self.stop_requests or self.broker.tend() or time.monotonic() > deadline:
                    raise Unreachable(
                        "the embedded broker did not start", remedy=f"see {self.broker.log}"
                    ) from None
                time.sleep(STEP_S)
            else:
                return

    def _tend(self) -> None:
        while not self.stop_requests:
            events = [event for child in self._all() if (event := child.tend())]
            if self.broker and self.broker.started_at != self.rung_at:
                self._ring_again()
            if not self.ready and self._all_workers_live():
                self.ready = True
                events.append(f"ready, with {self.workers} worker(s)")
            for event in events:
                self.say(event)
            if events:
                self._write_state()
            time.sleep(STEP_S)

    def _all_workers_live(self) -> bool:
        """Whether every worker that was started has recorded itself in the database."""
        here = socket.gethostname()
        try:
            with self.services.database.read() as session:
                live = workers.live(session, within_s=self.settings.lease_s)
        except Unreachable:
            return False
        return {child.pid for child in self.children if child.name.startswith("worker-")} <= {
            worker.pid for worker in live if worker.host == here
        }

    def _ring_again(self) -> None:
        """Have queued shards rung for again: the embedded broker forgets doorbells when it ends."""
        if self.broker is None:
            return
        self.rung_at = self.broker.started_at
        try:
            self.services.database.transact(shards.reset_dispatched)
        except Unreachable as error:
            self.say(f"lost doorbells ring again only after their deadline: {error}")

    def _stop(self) -> None:
        """Ask all to stop, wait while they save, kill what is left; the broker goes last."""
        if self.children:
            self.say("stopping: workers save their work; interrupt again to kill them")
        for child in self.children:
            child.ask_to_stop()
        deadline = time.monotonic() + DRAIN_S
        left = self.children
        while (left := [child for child in left if not child.ended_by(0)]) and (
            self.stop_requests < 2 and time.monotonic() < deadline
        ):
            time.sleep(STEP_S)
        for child in left:
            self.say(f"{child.name} was killed; its shard goes on from where it was last saved")
            child.kill()
        if self.broker is not None:
            self.broker.ask_to_stop()
            if not self.broker.ended_by(time.monotonic() + STOP_S):
                self.broker.kill()
        state_file(self.settings).unlink(missing_ok=True)

    def _all(self) -> list[ChildProcess]:
        return [self.broker, *self.children] if self.broker else self.children

    def _child(self, name: str, command: list[str], environment: dict[str, str]) -> ChildProcess:
        return ChildProcess(name, command, environment, log_folder(self.settings) / f"{name}.log")

    def _write_state(self) -> None:
        processes = [child.describe() for child in self._all()]
        write_state(
            self.settings, {"pid": os.getpid(), "ready": self.ready, "processes": processes}
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def note(_number: int, _frame: FrameType | None) -> None:
            self.stop_requests += 1

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` leaves it
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
