"""Processes that fork from one which has imported everything, and begin in a tenth of a second."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from scheduler.cli import run as run_command
from worker.settings import Settings

Part = Callable[[Settings], int]
EVERYTHING = "tests.chaos.scenarios"


def changed(settings: Settings, **changes: object) -> Settings:
    """The settings with changes, which what follows from them has too."""
    given = {name: getattr(settings, name) for name in Settings.model_fields}
    return Settings(_env_file=None, **(given | changes))


def command(*words: str) -> Part:
    """A command line."""
    return partial(run_words, words)


def run_words(words: tuple[str, ...], settings: Settings) -> int:
    """Run a command line in this process; its exit code."""
    os.environ.update(settings.child_environment())
    os.chdir(settings.home)
    code = run_command(words)
    sys.stdout.flush()
    return code


def fork(part: Part, settings: Settings, environment: Mapping[str, str], log: Path) -> BaseProcess:
    """Start a part in a session of its own; what it prints is added to `log`, and to `.out`.

    It leads the session, and can be signalled as a group, when this returns.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([EVERYTHING])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, part, settings, dict(environment), log))
    with ours:
        with theirs:
            process.start()
        with contextlib.suppress(EOFError):  # it closes its end, or dies
            ours.recv()
    return process


def _run(
    started: Connection, part: Part, settings: Settings, environment: Mapping[str, str], log: Path
) -> None:
    os.setsid()
    started.close()
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)  # until a worker sets its own
    for path, stream in ((log.with_suffix(".out"), sys.stdout), (log, sys.stderr)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), stream.fileno())
    os._exit(guarded(part, settings))


def guarded(part: Part, settings: Settings) -> int:
    """A part's exit code; 70 for an error that it did not handle."""
    try:
        return part(settings)
    except BaseException:
        traceback.print_exc()
        return os.EX_SOFTWARE
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()


class Forked:
    """A forked process as one of `subprocess`."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = int(process.pid or 0)

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to it alone, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it alone."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code
