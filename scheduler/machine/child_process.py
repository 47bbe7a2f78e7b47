"""One child process of the supervisor: started, watched, started again with a growing pause.

Each child leads its own session, so that Ctrl-C reaches the supervisor alone and a kill reaches the
child's own children too. On Linux the kernel kills it when the supervisor dies, however it dies.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 30.0
HEALTHY_S = 60.0  # after running for so long, the next pause is the first one again
LOG_BYTES = 10 * 2**20  # a larger log is put aside when its process starts
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass
class Child:
    """A process to keep alive; `inherit` is what it finds on its standard input."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    inherit: bytes = b""
    restarts: int = 0
    last_exit: str | None = None
    started_at: float = 0.0  # by the monotonic clock
    due_at: float = 0.0
    _pause_s: float = FIRST_PAUSE_S
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process now."""
        with fresh_log(self.log) as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                self.command,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - the supervisor has no threads
            )
        self.started_at = time.monotonic()
        self._hand_over(self._process)

    def tend(self) -> str | None:
        """Notice an end, and start again what is due; return what happened, in words."""
        if self._process is None:
            if time.monotonic() < self.due_at:
                return None
            self.start()
            self.restarts += 1
            return f"{self.name} started again (pid {self.pid})"
        code = self._process.poll()
        return None if code is None else self._ended(code)

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def gone_by(self, deadline: float) -> bool:
        """Wait for its end until `deadline` by the monotonic clock; say whether it came."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        self._sweep(self._process.pid)
        self._process = None
        return True

    def kill(self) -> None:
        """SIGKILL the process and everything it started."""
        if self._process is not None:
            self._sweep(self._process.pid)
            self._process.wait()
            self._process = None

    def describe(self) -> dict[str, Any]:
        """As plain data, for `state.json`."""
        return {
            "name": self.name,
            "pid": self.pid,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "log": str(self.log),
        }

    def _ended(self, code: int) -> str:
        assert self._process is not None  # noqa: S101 - for mypy: only called on a process
        self._sweep(self._process.pid)
        self._process = None
        now = time.monotonic()
        healthy = now - self.started_at >= HEALTHY_S
        pause_s = FIRST_PAUSE_S if healthy else self._pause_s
        self._pause_s = min(LAST_PAUSE_S, pause_s * 2)
        self.due_at = now + pause_s
        self.last_exit = _in_words(code)
        return (
            f"{self.name} ended ({self.last_exit}); starts again in {pause_s:g} s; see {self.log}"
        )

    def _hand_over(self, process: subprocess.Popen[bytes]) -> None:
        stdin = process.stdin
        with contextlib.suppress(BrokenPipeError):  # it died at once: `tend` will tell
            if stdin is not None:
                stdin.write(self.inherit)
                stdin.close()

    @staticmethod
    def _sweep(group: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _die_with(parent: int) -> Callable[[], None] | None:
    """What a child runs before its program, so that it dies when its parent does."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def bind() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(1)

    return bind


def fresh_log(log: Path) -> BinaryIO:
    """Open a log to go on with, once a large one is put aside; readable by its owner alone."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    log.touch(mode=0o600)
    return log.open("ab")


def _in_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
