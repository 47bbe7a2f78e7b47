"""A process that answers requests within limits of time and memory."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from db.causes import Cause
from db.errors import BadInput, GenmillError

PROCESS = Path(__file__).with_name("process.py")
WALL_S = 120.0  # of one answer, on a machine that is very busy
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
# no program ends itself by these: a user sends them or, where memory is short, the kernel
FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}


class TooMuch(BadInput):
    """It takes too much time or memory."""

    cause = Cause.WORK
    lasting = True


class Interrupted(GenmillError):
    """The process was killed or held up, which says nothing of the program."""

    cause = Cause.MACHINE


class Confined:
    """Has `program` answer requests, one at a time; threads take turns.

    `program` is a file with a function `answer`, from JSON to JSON, that needs nothing of Genmill.
    The process is started at the first request, and anew once it has ended: one that took more than
    `cpu_s` of the processor, or crashed. It gets no more than `memory_bytes` in all.
    """

    def __init__(
        self, program: Path, *, cpu_s: float, memory_bytes: int, wall_s: float = WALL_S
    ) -> None:
        self._arguments = [str(PROCESS), str(program), str(memory_bytes)]
        self._cpu_s, self._wall_s = cpu_s, wall_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: object, *, cpu_s: float | None = None) -> dict[str, Any]:
        """The program's answer. Raises `TooMuch`, and `Interrupted` where it is not at fault."""
        allowed_s = cpu_s or self._cpu_s
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self.close()  # killed since the last request
            answered = None
            try:
                answered = self._exchange(json.dumps([allowed_s, request], default=str))
                if answered is None:
                    raise self._failure(allowed_s)
            finally:
                if answered is None:
                    self.close()  # also after an error: a late answer would be the next one's
        if (limit := answered.get("limit")) is not None:
            raise TooMuch(str(limit))
        return answered

    def close(self) -> None:
        """End the process; the next request starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _failure(self, allowed_s: float) -> GenmillError:
        """Why the process has not answered."""
        assert self._process is not None  # noqa: S101 - for mypy: it was asked
        self._process.kill()  # in case that it has closed its output alone
        ended_by = -self._process.wait()
        if ended_by in FROM_OUTSIDE:
            name = signal.Signals(ended_by).name
            return Interrupted(
                f"its process was ended by {name}, or has not answered for {self._wall_s:g} s",
                remedy="if nobody has ended it, memory was short: see the kernel's log",
            )
        if ended_by == signal.SIGPROF:
            return TooMuch(f"it takes more than {allowed_s:g} s")
        return TooMuch("it crashes")

    def _exchange(self, line: str) -> dict[str, Any] | None:
        """The answer to a line; None if the process ended, or has not answered in time."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None  # noqa: S101 - for mypy: both are pipes
        assert process.stdout is not None  # noqa: S101 - as above
        answered = ""
        watch = threading.Timer(self._wall_s, process.kill)  # it may not even read
        watch.start()
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answered = process.stdout.readline()
        except BrokenPipeError:  # it ended
            pass
        finally:
            watch.cancel()
        if not answered.endswith("\n"):
            return None
        found: dict[str, Any] = json.loads(answered)
        return found

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603 - our own program, no shell
            [sys.executable, "-I", *self._arguments],
            env=ONE_THREAD,  # ours holds passwords
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the process that asks
        )
