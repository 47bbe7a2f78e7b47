"""Simulated processes and threads: one of them runs at a time, and a seed decides which goes on.

A simulated thread runs real code on a real thread, which holds the turn until it waits: for a time,
for another thread, or for a service. The clock stands still while a thread can run. A process that
dies raises `Killed` in each of its threads at once, and whatever they still try does nothing.
What waits for nothing but the clock is a timer, without a thread.
"""

import heapq
import random
import threading
from collections.abc import Callable
from typing import Any, ClassVar

EPOCH = 1_900_000_000.0  # seconds; when each simulation begins
TICK_S = 1e-6


class Killed(SystemExit):
    """The process of this thread has died: like any order to exit, no handler may swallow it."""


class Process:
    """A simulated process: its threads die and freeze together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen_until = 0.0
        self.threads: list[Thread] = []


class Thread:
    """A simulated thread: it goes on at the time `wake_at`, or as soon as it is `ready`."""

    def __init__(self, process: Process, target: Callable[..., object], arguments: Any) -> None:
        self.process = process
        self.wake_at = 0.0
        self.ready: Callable[[], object] | None = None
        self.ended = False
        self.on_end: Callable[[], object] | None = None
        self.carrier: _Carrier | None = None
        self._target, self._arguments = target, arguments

    def can_run(self, now: float) -> bool:
        """Whether it can go on."""
        if self.wake_at > now and (self.ready is None or not self.ready()):
            return False
        return self.process.frozen_until <= now

    def due_at(self, now: float) -> float:
        """When to look at it again if nothing happens before."""
        frozen_until = self.process.frozen_until
        return frozen_until if frozen_until > now else self.wake_at

    def run(self) -> None:
        """Run its code."""
        if not self.process.dead:
            self._target(*self._arguments)


class Machine:
    """Runs simulated threads until nothing is left to do, somebody stops it, or after `most` steps.

    `step` counts the turns; `now` is the clock, in seconds.
    """

    def __init__(self, seed: int, most: int = 20_000) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.step = 0
        self.failure: BaseException | None = None  # what ended a thread without being foreseen
        self.stopped = False
        self._most = most
        self._threads: list[Thread] = []
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._timers_set = 0
        self._dead: list[Thread] = []  # of processes that died; they end before anything happens
        self._current: Thread | None = None
        self._main = threading.Lock()

    @property
    def process(self) -> Process:
        """The process that runs just now."""
        assert self._current is not None
        return self._current.process

    def tick(self) -> float:
        """The clock, which never shows the same time twice."""
        self.now += TICK_S
        return self.now

    def start(self, process: Process, target: Callable[..., object], *arguments: Any) -> Thread:
        """Start a thread of a process."""
        thread = Thread(process, target, arguments)
        process.threads.append(thread)
        self._threads.append(thread)
        return thread

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Take an action after some time; it must not wait."""
        self._timers_set += 1
        heapq.heappush(self._timers, (self.now + seconds, self._timers_set, action))

    def run(self) -> None:
        """Run until the end; then kill what is left. Raises what ended a thread unforeseen."""
        self._main.acquire()
        self._pass_on(None)
        self._main.acquire()
        self.stopped = True
        for process in {thread.process: None for thread in self._threads}:
            self.bury(process)
        if self._threads:
            self._pass_on(None)
            self._main.acquire()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """End the simulation when the current thread waits next."""
        self.stopped = True

    def sleep(self, seconds: float) -> None:
        """Let the current thread wait."""
        self.wait(seconds)

    def wait(self, seconds: float = 1e9, ready: Callable[[], object] | None = None) -> bool:
        """Let the current thread wait until it is `ready`, at most `seconds`; whether it is."""
        thread = self._current
        assert thread is not None
        if thread.process.dead:
            raise Killed
        thread.wake_at, thread.ready = self.now + seconds, ready
        self._pass_on(thread)
        if thread.process.dead:
            raise Killed
        return ready is not None and bool(ready())

    def require_alive(self) -> None:
        """Raise `Killed` if the current process has died."""
        if self.process.dead:
            raise Killed

    def kill(self, process: Process) -> None:
        """End a process; raises `Killed` if it is the current one."""
        self.bury(process)
        if self._current is not None and self._current.process is process:
            raise Killed

    def bury(self, process: Process) -> None:
        """End the threads of a process, but for the current one, which ends by itself."""
        if not process.dead:
            process.dead = True
            self._dead += [thread for thread in process.threads if thread is not self._current]

    def _pass_on(self, giver: Thread | None) -> None:
        """Give the turn to the next thread, or to `run` at the end; wait for the next turn."""
        taker = self._choose()
        self._current = taker
        if taker is giver and giver is not None:
            return
        if taker is None:
            self._main.release()
        else:
            if taker.carrier is None:
                taker.carrier = _Carrier.for_thread(self, taker)
            taker.carrier.turn.release()
        if giver is not None and not giver.ended:
            assert giver.carrier is not None
            giver.carrier.turn.acquire()

    def _choose(self) -> Thread | None:
        if self._dead:
            return self._dead.pop()
        if self.stopped or self.failure is not None:
            return None
        self.step += 1
        while (self._threads or self._timers) and self.step <= self._most:
            self._act()
            if self._dead or self.stopped:
                return self._dead.pop() if self._dead else None
            now = self.now
            able = [thread for thread in self._threads if thread.can_run(now)]
            if able:
                return able[int(self.random.random() * len(able))]
            due = [thread.due_at(now) for thread in self._threads]
            self.now = min([*due, self._timers[0][0]] if self._timers else due)
        return None

    def _act(self) -> None:
        """Take the actions that are due."""
        self._current = None
        while self._timers and self._timers[0][0] <= self.now and not self.stopped:
            _, _, action = heapq.heappop(self._timers)
            try:
                action()
            except Killed:
                pass
            except Exception as error:
                self.failure = self.failure or error
                self.stopped = True

    def carry(self, thread: Thread) -> None:
        """Run a thread to its end on the real thread that carries it, and pass the turn on."""
        try:
            thread.run()
        except Killed:
            pass
        except BaseException as error:
            self.failure = self.failure or error
        thread.ended = True
        self._threads.remove(thread)
        thread.process.threads.remove(thread)
        try:
            if thread.on_end is not None:
                thread.on_end()
        except Exception as error:
            self.failure = self.failure or error
        assert thread.carrier is not None
        thread.carrier.give_back()
        self._pass_on(thread)


class _Carrier:
    """A real thread that carries one simulated thread after another, in any simulation."""

    _idle: ClassVar["list[_Carrier]"] = []

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()
        self._machine: Machine | None = None
        self._thread: Thread | None = None
        threading.Thread(target=self._run, name="carrier", daemon=True).start()

    @classmethod
    def for_thread(cls, machine: Machine, thread: Thread) -> "_Carrier":
        carrier = cls._idle.pop() if cls._idle else cls()
        carrier._machine, carrier._thread = machine, thread
        return carrier

    def give_back(self) -> None:
        """Let it carry another thread from its next turn on."""
        self._idle.append(self)

    def _run(self) -> None:
        while True:
            self.turn.acquire()
            machine, thread = self._machine, self._thread
            assert machine is not None
            assert thread is not None
            machine.carry(thread)
            del machine, thread
