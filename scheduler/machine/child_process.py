"""A child process of the supervisor: started, watched, restarted after a growing pause.

Each child leads its own session, so that Ctrl-C reaches only the supervisor, and a kill reaches the
child's own children too. On Linux, the kernel kills it when the supervisor dies for any reason.
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
from typing import Any

from scheduler.machine import rotating_log
from worker.files import disk_errors
from worker.isolation import Isolated, described

ERROR = "Error: "  # with which the command line begins the line of an error
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 30.0
HEALTHY_S = 60.0  # a process that ran this long restarts after the first pause again
LAST_BYTES = 4096  # of a log, in which an error is looked for
LAST_LINES_S = 2.0  # how long to wait for an ended process's last lines to reach its log
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass
class ChildProcess:
    """A process to keep alive; `stdin` is written to its standard input."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    stdin: bytes = b""
    restarts: int = 0
    last_exit: str | None = None
    last_code: int | None = None
    started_at: float = 0.0  # by the monotonic clock
    restart_at: float = 0.0
    _pause_s: float = FIRST_PAUSE_S
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _log_writer: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id, or None if it is not running."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process, with its output going to its log."""
        rotating_log.open_log(self.log).close()  # raises here if it cannot be written
        self._log_writer = subprocess.Popen(  # noqa: S603 - our own program, no shell
            [sys.executable, "-I", "-S", rotating_log.__file__, str(self.log)],
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._log_writer.stdin is not None  # noqa: S101 - for mypy
        with self._log_writer.stdin as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                self.command,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # the supervisor has no threads, so this is safe
                preexec_fn=kill_with_parent(os.getpid()),  # noqa: PLW1509 - see above
            )
        self.started_at = time.monotonic()
        assert self._process.stdin is not None  # noqa: S101 - for mypy
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(self.stdin)  # broken if the process died at once: see `keep_alive`

    def keep_alive(self) -> str | None:
        """Notice that the process has ended, restart it when due; return what happened, as text."""
        if self._process is None:
            return self._restart() if time.monotonic() >= self.restart_at else None
        code = self._process.poll()
        if code is None:
            return None
        self._clean_up()
        if time.monotonic() - self.started_at >= HEALTHY_S:
            self._pause_s = FIRST_PAUSE_S
        self.last_exit, self.last_code = _exit_text(code), code
        return f"{self.name} ended ({self.last_exit}); {self._postpone()}; see {self.log}"

    def _restart(self) -> str:
        """Start the process again; if that fails, as on a full disk, it is tried again later."""
        with Isolated() as attempt, disk_errors(self.log.parent):
            self.start()
            self.restarts += 1
        if attempt.error is None:
            return f"{self.name} restarted (pid {self.pid})"
        self.last_exit = f"cannot be started: {described(attempt.error)}"
        return f"{self.name} {self.last_exit}; {self._postpone()}"

    def _postpone(self) -> str:
        """Put the next start off by the current pause, and double that."""
        pause_s = self._pause_s
        self.restart_at = time.monotonic() + pause_s
        self._pause_s = min(LAST_PAUSE_S, pause_s * 2)
        return f"restarts in {pause_s:g} s"

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def wait_until(self, deadline: float) -> bool:
        """Wait for the end until `deadline` by the monotonic clock; return whether it came."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        self._clean_up()
        return True

    def kill(self) -> None:
        """SIGKILL the process and everything it started."""
        if self._process is not None:
            self._clean_up()

    def describe(self) -> dict[str, Any]:
        """Its state as plain data, for `state.json`."""
        return {
            "name": self.name,
            "pid": self.pid,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "log": str(self.log),
        }

    def _clean_up(self) -> None:
        """Kill what is left of the process's group, and wait for its last lines to be logged."""
        assert self._process is not None  # noqa: S101 - for mypy: only called on a process
        assert self._log_writer is not None  # noqa: S101 - as above
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        # a process that left the group may still hold the pipe open
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._log_writer.wait(LAST_LINES_S)


def kill_with_parent(parent: int) -> Callable[[], None] | None:
    """What a child runs before its program, so that the kernel kills it with its parent."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def bind() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return bind


def last_error(log: Path) -> str | None:
    """The last error that a command has written to its log, without its `Error: `."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    told = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    return told[-1] if told else None


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
