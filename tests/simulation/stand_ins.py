"""Stand-ins for what the real code takes from its machine: time, threads, chance, its own end.

`installed` puts them into every module of Genmill that names the real ones.
"""

import concurrent.futures
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from random import Random
from typing import Any

from tests.simulation.threads import EPOCH, Killed, Machine

ROOMS = ("db", "worker", "scheduler")
NEVER_S = 1e9

_machines: list[Machine] = []  # the one that runs


@contextmanager
def running_on(machine: Machine) -> Iterator[None]:
    """Let the stand-ins belong to this machine."""
    _machines.append(machine)
    try:
        yield
    finally:
        _machines.pop()


def machine() -> Machine:
    """The machine that runs."""
    return _machines[-1]


@contextmanager
def installed() -> Iterator[None]:
    """Put the stand-ins into the modules of Genmill that are loaded."""
    undo: list[tuple[Any, str, object]] = []
    stand_ins = {id(real): stand_in for real, stand_in in STAND_INS}
    loaded = [m for name, m in [*sys.modules.items()] if name.partition(".")[0] in ROOMS]
    try:
        for module in loaded:
            for name, value in [*vars(module).items()]:
                if id(value) in stand_ins:
                    undo.append((module, name, value))
                    setattr(module, name, stand_ins[id(value)])
                undo += _unlocked(value) if isinstance(value, type) else []
        yield
    finally:
        for module, name, value in reversed(undo):
            setattr(module, name, value)


def _unlocked(of: type) -> list[tuple[Any, str, object]]:
    """Let simulated threads compute cached properties: until Python 3.12, each has a real lock."""
    undo: list[tuple[Any, str, object]] = []
    for value in vars(of).values():
        if isinstance(value, cached_property) and hasattr(value, "lock"):
            undo.append((value, "lock", value.lock))
            value.lock = nullcontext()
    return undo


class Time:
    """In place of the module `time`."""

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def monotonic(self) -> float:
        return machine().tick()

    perf_counter = monotonic

    def time(self) -> float:
        return EPOCH + machine().tick()

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def sleep(self, seconds: float) -> None:
        machine().sleep(seconds)


class Lock:
    """In place of `threading.Lock`."""

    def __init__(self) -> None:
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._held and blocking:
            machine().wait(NEVER_S if timeout < 0 else timeout, lambda: not self._held)
        taken = not self._held
        self._held = True
        return taken

    def release(self) -> None:
        self._held = False

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Event:
    """In place of `threading.Event`."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            machine().wait(NEVER_S if timeout is None else timeout, self.is_set)
        return self._set


class Thread:
    """In place of `threading.Thread`: a thread of the process that starts it."""

    def __init__(
        self,
        target: Callable[..., object] | None = None,
        name: str = "",
        args: Sequence[object] = (),
        kwargs: dict[str, Any] | None = None,
        daemon: bool = False,
    ) -> None:
        self.name, self.daemon = name, daemon
        self._work = target or self.run
        self._arguments, self._options = args, kwargs or {}
        self._begun = self._ended = False

    def run(self) -> None:
        """What a subclass does."""

    def start(self) -> None:
        self._begun = True
        machine().start(machine().process, self._run)

    def join(self, timeout: float | None = None) -> None:
        if not self._ended:
            machine().wait(NEVER_S if timeout is None else timeout, lambda: self._ended)

    def is_alive(self) -> bool:
        return self._begun and not self._ended

    def _run(self) -> None:
        try:
            self._work(*self._arguments, **self._options)
        finally:
            self._ended = True


class Timer(Thread):
    """In place of `threading.Timer`."""

    def __init__(self, interval: float, function: Callable[[], object]) -> None:
        super().__init__()
        self._interval, self._function = interval, function
        self._cancelled = Event()

    def run(self) -> None:
        if not self._cancelled.wait(self._interval):
            self._function()

    def cancel(self) -> None:
        self._cancelled.set()


class Threading:
    """In place of the module `threading`."""

    Event, Lock, RLock, Thread, Timer = Event, Lock, Lock, Thread, Timer

    def __getattr__(self, name: str) -> object:
        return getattr(threading, name)


class Future:
    """In place of a `concurrent.futures.Future`."""

    def __init__(self) -> None:
        self._done = False
        self._result: Any = None
        self._error: Exception | None = None

    def run(self, work: Callable[..., object], *arguments: object, **options: object) -> None:
        try:
            self._result = work(*arguments, **options)
        except Exception as error:
            self._error = error
        finally:
            self._done = True

    def done(self) -> bool:
        return self._done

    def exception(self, timeout: float | None = None) -> Exception | None:
        if not self._done:
            machine().wait(NEVER_S if timeout is None else timeout, self.done)
        if not self._done:
            raise TimeoutError
        return self._error

    def result(self, timeout: float | None = None) -> Any:
        if (error := self.exception(timeout)) is not None:
            raise error
        return self._result


class Executor:
    """In place of `ThreadPoolExecutor`: a thread for each piece of work; of one, in turn."""

    def __init__(self, max_workers: int | None = None, *_: object, **__: object) -> None:
        self._alone = max_workers == 1
        self._futures: list[Future] = []

    def submit(self, work: Callable[..., object], *arguments: object, **options: object) -> Future:
        future, before = Future(), self._futures[-1:] if self._alone else []
        self._futures.append(future)

        def run() -> None:
            for each in before:
                each.exception()
            future.run(work, *arguments, **options)

        machine().start(machine().process, run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for future in self._futures if wait else ():
            future.exception()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class Os:
    """In place of the module `os`: its `_exit` ends the simulated process."""

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def _exit(self, _code: int) -> None:
        machine().kill(machine().process)
        raise Killed


class Secrets:
    """In place of the module `secrets`: what it draws follows from the seed."""

    def __getattr__(self, name: str) -> object:
        return getattr(secrets, name)

    @property
    def _random(self) -> Random:
        return machine().random

    def randbelow(self, bound: int) -> int:
        return self._random.randrange(bound)

    def randbits(self, bits: int) -> int:
        return self._random.getrandbits(bits)

    def token_bytes(self, count: int = 32) -> bytes:
        return self._random.randbytes(count)

    def token_hex(self, count: int = 32) -> str:
        return self.token_bytes(count).hex()


STAND_INS: list[tuple[object, object]] = [
    (time, Time()),
    (threading, Threading()),
    (os, Os()),
    (secrets, Secrets()),
    (concurrent.futures.ThreadPoolExecutor, Executor),
]
