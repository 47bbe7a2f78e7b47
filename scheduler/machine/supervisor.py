"""The parent of one machine's processes: keeps broker, scheduler and workers alive; stops them.

When it is killed, the kernel kills its children (see `child_process`), and their shards continue
elsewhere once the leases have expired.
"""

import contextlib
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

from db import schema, shards, workers
from db.errors import Refused, Unreachable
from scheduler.machine.broker import ping, prepare_broker
from scheduler.machine.child_process import ChildProcess, last_error
from scheduler.machine.home import (
    copied_from,
    is_gone,
    log_folder,
    state_file,
    supervisor_lock,
    write_state,
)
from scheduler.output.render import to_count
from worker.failpoints import reach
from worker.files import disk_errors
from worker.isolation import Survivor
from worker.services import open_services
from worker.settings import Settings

DRAIN_TIMEOUT_S = 60.0  # for a worker to save its shard, before it is killed
BROKER_STOP_TIMEOUT_S = 5.0  # it has nothing to save
BROKER_START_TIMEOUT_S = 15.0
POLL_S = 0.1
STATE_PAUSE_S = 5.0  # between two tries to write the state

Say = Callable[[str], None]  # shows a line to people


def genmill_command(*words: str) -> list[str]:
    """The command line of a `genmill` process; -P keeps the working folder off the import path."""
    return [sys.executable, "-P", "-m", "scheduler", *words]


class Supervisor:
    """Starts everything, keeps it alive until SIGINT, SIGTERM or SIGHUP, then stops everything."""

    def __init__(self, settings: Settings, *, workers: int, say: Say) -> None:
        self.settings = settings
        self.workers = workers
        self.say = say
        self.stop_requests = 0  # the second one kills what still runs
        self.lock: int | None = None  # the file that is locked, once it is
        self.ready = False
        self.broker_seen_at = 0.0  # when the broker started that knows the doorbells
        self.services = open_services(settings)
        self._survive = Survivor(say).survive
        self.state_due_at = math.inf  # when to write it although nothing has happened
        self.broker: ChildProcess | None = None
        self.children: list[ChildProcess] = []  # scheduler and workers

    def run(self) -> None:
        """Start everything, watch it, stop it. Raises `Refused` if another one runs here."""
        with supervisor_lock(self.settings) as self.lock, self._counting_stop_signals():
            try:
                self._start()
                self._watch()
            finally:
                self._stop()
                self.services.close()

    def _start(self) -> None:
        # checked here, because a child would fail again and again
        self.services.store.check()
        for limit in self.services.store.limits():
            self.say(f"the object store has {limit}")
        if self.settings.redis_url is None:
            self._start_broker()
            reach(self.settings, "broker_started")
        else:
            ping(self.settings)
        schema.upgrade(self.settings.database)
        self.services.store.verify()
        self._ring_again()
        environment = self.settings.child_environment()
        if not self.settings.threads:  # the workers share the cores
            share = max(1, (os.cpu_count() or 1) // max(1, self.workers))
            environment.setdefault("OMP_NUM_THREADS", str(share))
        self.say(f"starting in {self.settings.home.absolute()}; stop with Ctrl-C")
        names = ["scheduler", *(f"worker-{n + 1}" for n in range(self.workers))]
        for name in names:
            command = genmill_command(name.partition("-")[0])
            self.children.append(self._child(name, command, environment))
            self.children[-1].start()
            reach(self.settings, "child_started")
        self._write_state()

    def _start_broker(self) -> None:
        self._warn_of_copy()
        broker = prepare_broker(self.settings)
        environment = self.settings.child_environment()
        self.broker = self._child("broker", [str(broker.server), "-"], environment)
        self.broker.stdin = broker.configuration
        self.broker.start()
        deadline = time.monotonic() + BROKER_START_TIMEOUT_S
        while True:
            try:
                ping(self.settings, timeout_s=1)
            except Unreachable:
                if self.stop_requests or self.broker.keep_alive() or time.monotonic() > deadline:
                    raise Unreachable(
                        "the embedded broker did not start", remedy=f"see {self.broker.log}"
                    ) from None
                time.sleep(POLL_S)
            else:
                return

    def _warn_of_copy(self) -> None:
        """Two records on one store would each delete as garbage what only the other one names."""
        settings = self.settings
        came_from = copied_from(settings)
        if came_from and settings.store_url and settings.database_url is None:
            self.say(
                f"warning: this home was copied or moved from {came_from}; if that one is still "
                f"used, give this one a store of its own, because both use {settings.store}"
            )

    def _watch(self) -> None:
        """Look after the processes; whatever fails here must not end what works."""
        while not self.stop_requests:
            events = [event for child in self._processes() if (event := self._keep_alive(child))]
            if not self.ready:
                self._refuse_wrong_settings()
            if self._survive("looking for the home", self._is_home_gone):
                events.append("the home was moved or removed, so everything stops")
                self.stop_requests += 1
            if self.broker and self.broker.started_at != self.broker_seen_at:
                self._survive("ringing again", self._ring_again)
            if not self.ready and self._survive("looking for workers", self._all_workers_live):
                self.ready = True
                events.append(f"ready, with {to_count(self.workers, 'worker')}")
            for event in events:
                self._survive("telling", partial(self.say, event))
            if events or time.monotonic() > self.state_due_at:
                again_at = time.monotonic() + STATE_PAUSE_S
                self.state_due_at = (
                    self._survive("writing the state", self._write_state) or again_at
                )
            time.sleep(POLL_S)

    def _is_home_gone(self) -> bool:
        return self.lock is not None and is_gone(self.settings, self.lock)

    def _refuse_wrong_settings(self) -> None:
        """Raise `Refused` if a process has ended because of its settings: it always would."""
        for child in self.children:
            if child.last_code == Refused.exit_code:
                reason = last_error(child.log) or child.last_exit
                raise Refused(f"{child.name}: {reason}", remedy=f"see {child.log}")

    def _keep_alive(self, child: ChildProcess) -> str | None:
        return self._survive(f"looking after {child.name}", child.keep_alive)

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
        """Make queued shards due again: the embedded broker loses its doorbells when it ends."""
        if self.broker is None:
            return
        self.broker_seen_at = self.broker.started_at
        try:
            self.services.database.transact(shards.reset_dispatched)
        except Unreachable as error:
            self.say(f"lost doorbells will be rung again only after their deadline: {error}")

    def _stop(self) -> None:
        """Terminate all, wait while workers save, kill what is left; the broker stops last."""
        if self.children:
            self.say("stopping: workers save their work; interrupt again to kill them")
        for child in self.children:
            self._survive(f"stopping {child.name}", child.terminate)
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        left = self.children
        while (left := [child for child in left if not self._has_ended(child)]) and (
            self.stop_requests < 2 and time.monotonic() < deadline
        ):
            time.sleep(POLL_S)
        for child in left:
            self.say(f"{child.name} was killed; its shard will resume from its last checkpoint")
            self._survive(f"killing {child.name}", child.kill)
        if self.broker is not None:
            self._survive("stopping the broker", partial(self._stop_broker, self.broker))
        remove = partial(state_file(self.settings).unlink, missing_ok=True)
        self._survive("removing the state", remove)

    def _has_ended(self, child: ChildProcess) -> bool | None:
        return self._survive(f"waiting for {child.name}", lambda: child.wait_until(0))

    def _stop_broker(self, broker: ChildProcess) -> None:
        broker.terminate()
        if not broker.wait_until(time.monotonic() + BROKER_STOP_TIMEOUT_S):
            broker.kill()

    def _processes(self) -> list[ChildProcess]:
        return [self.broker, *self.children] if self.broker else self.children

    def _child(self, name: str, command: list[str], environment: dict[str, str]) -> ChildProcess:
        return ChildProcess(name, command, environment, log_folder(self.settings) / f"{name}.log")

    def _write_state(self) -> float:
        """Write the state. Returns when to write it again if nothing changes: never."""
        processes = [child.describe() for child in self._processes()]
        state = {"pid": os.getpid(), "ready": self.ready, "processes": processes}
        with disk_errors(self.settings.home.absolute()):
            write_state(self.settings, state)
        return math.inf

    @contextlib.contextmanager
    def _counting_stop_signals(self) -> Iterator[None]:
        def count(_number: int, _frame: FrameType | None) -> None:
            self.stop_requests += 1

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup` makes it ignored
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, count) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
