"""The parent of one machine's processes: broker, scheduler and workers, kept alive and stopped.

Where it is killed, the kernel kills its children (see `children`), and a worker's shard goes on
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
from scheduler.machine.child_process import Child
from scheduler.machine.home import log_folder, only_one, state_file, write_state
from worker.services import open_services
from worker.settings import Settings

DRAIN_S = 60.0  # how long a worker may take to save its shard; then it is killed
STOP_S = 5.0  # the broker has nothing to save
STEP_S = 0.1
BROKER_S = 15.0  # a server that has not answered by then will not

Say = Callable[[str], None]


def genmill(*words: str) -> list[str]:
    """The command line of a `genmill` process; -P keeps a `db` in the working folder out."""
    return [sys.executable, "-P", "-m", "scheduler", *words]


class Supervisor:
    """Starts everything, keeps it alive until SIGINT, SIGTERM or SIGHUP, then stops it all."""

    def __init__(self, settings: Settings, *, workers: int, say: Say) -> None:
        self.settings = settings
        self.workers = workers
        self.say = say
        self.asked = 0  # how often it was told to stop; the second time it kills
        self.ready = False
        self.rung_at = 0.0  # when the broker started whose lost doorbells are taken care of
        self.services = open_services(settings)
        self.broker: Child | None = None
        self.children: list[Child] = []  # scheduler and workers

    def run(self) -> None:
        """Start, tend, stop. Raises `Refused` where one already runs in this home."""
        with only_one(self.settings), self._signals():
            try:
                self._start()
                self._tend()
            finally:
                self._stop()
                self.services.close()

    def _start(self) -> None:
        self._check()
        if self.settings.redis_url is None:
            self._start_broker()
        schema.upgrade(self.settings.database)
        self._ring_again()
        environment = self.settings.child_environment(threads=self._threads())
        self.say(f"starting in {self.settings.home.absolute()}; stop with Ctrl-C")
        names = ["scheduler", *(f"worker-{n + 1}" for n in range(self.workers))]
        for name in names:
            self.children.append(self._child(name, genmill(name.partition("-")[0]), environment))
            self.children[-1].start()
        self._tell()

    def _check(self) -> None:
        """Raise `Unreachable` before anything starts where it would only start again and again."""
        if self.settings.redis_url is not None:
            ping(self.settings)
        self.services.store.check()

    def _start_broker(self) -> None:
        broker = prepare_broker(self.settings)
        environment = self.settings.child_environment()
        self.broker = self._child("broker", [str(broker.server), "-"], environment)
        self.broker.inherit = broker.configuration
        self.broker.start()
        deadline = time.monotonic() + BROKER_S
        while not self._broker_answers():
            if self.asked or self.broker.tend() or time.monotonic() > deadline:
                raise Unreachable(f"the embedded broker did not start; see {self.broker.log}")
            time.sleep(STEP_S)

    def _broker_answers(self) -> bool:
        try:
            return bool(ping(self.settings, timeout_s=1))
        except Unreachable:
            return False

    def _tend(self) -> None:
        while not self.asked:
            events = [event for child in self._all() if (event := child.tend())]
            if self.broker and self.broker.started_at != self.rung_at:
                self._ring_again()
            if not self.ready and self._all_there():
                self.ready = True
                events.append(f"ready, with {self.workers} worker(s)")
            for event in events:
                self.say(event)
            if events:
                self._tell()
            time.sleep(STEP_S)

    def _all_there(self) -> bool:
        """Whether as many workers of this host as were started have entered themselves."""
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
        """Our broker keeps nothing: what it was given before it started must be rung for again."""
        if self.broker is None:
            return
        self.rung_at = self.broker.started_at
        try:
            self.services.database.transact(shards.forget_rings)
        except Unreachable as error:
            self.say(f"doorbells ring again after the deadline: {error}")

    def _stop(self) -> None:
        """Ask all, wait while they save, kill what is left; the broker last, they still use it."""
        if self.children:
            self.say("stopping: workers save what they are making (again: stop at once)")
        for child in self.children:
            child.ask_to_stop()
        deadline = time.monotonic() + DRAIN_S
        left = self.children
        while (left := [c for c in left if not c.gone_by(0)]) and self._patient(deadline):
            time.sleep(STEP_S)
        for child in left:
            self.say(f"{child.name} was killed; its shard goes on where it was last saved")
            child.kill()
        self._stop_broker()
        state_file(self.settings).unlink(missing_ok=True)

    def _stop_broker(self) -> None:
        if self.broker is not None:
            self.broker.ask_to_stop()
            if not self.broker.gone_by(time.monotonic() + STOP_S):
                self.broker.kill()

    def _patient(self, deadline: float) -> bool:
        return self.asked < 2 and time.monotonic() < deadline

    def _all(self) -> list[Child]:
        return [self.broker, *self.children] if self.broker else self.children

    def _child(self, name: str, command: list[str], environment: dict[str, str]) -> Child:
        return Child(name, command, environment, log_folder(self.settings) / f"{name}.log")

    def _threads(self) -> int:
        """The cores divided among the workers, unless it was set."""
        return self.settings.threads or max(1, (os.cpu_count() or 1) // self.workers)

    def _tell(self) -> None:
        processes = [child.describe() for child in self._all()]
        write_state(
            self.settings, {"pid": os.getpid(), "ready": self.ready, "processes": processes}
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def note(_number: int, _frame: FrameType | None) -> None:
            self.asked += 1

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` leaves it
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
