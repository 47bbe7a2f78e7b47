"""What a machine's home says about the supervisor that runs there: its lock and its state."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from db.errors import Refused
from scheduler.machine.broker import home_trouble, private_folder
from worker.settings import Settings


def make_home(settings: Settings) -> None:
    """Make the home, for its owner alone; `Refused` where it cannot be used."""
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_folder(settings).mkdir(mode=0o700, exist_ok=True)
        private_folder(_lock_file(settings).parent)
    except OSError as error:
        raise Refused(home_trouble(settings, error)) from None


def state_file(settings: Settings) -> Path:
    """Where the supervisor tells what it runs."""
    return settings.home.absolute() / "run" / "state.json"


def log_folder(settings: Settings) -> Path:
    """Where each process's output goes."""
    return settings.home.absolute() / "logs"


def read_state(settings: Settings) -> dict[str, Any]:
    """What the supervisor last told; empty where none runs or it has not told yet."""
    try:
        state: dict[str, Any] = json.loads(state_file(settings).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state


def write_state(settings: Settings, state: dict[str, Any]) -> None:
    """Tell what runs; a reader sees the old state or the new one, never half of it."""
    fresh = state_file(settings).with_suffix(".new")
    fresh.write_text(json.dumps(state, indent=1), "utf-8")
    fresh.replace(state_file(settings))


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the home's lock; `Refused` where another supervisor holds it or the home is unusable.

    The kernel frees the lock when its holder dies, however it dies.
    """
    make_home(settings)
    try:
        descriptor = os.open(_lock_file(settings), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Refused(home_trouble(settings, error)) from None
    try:
        if not any(_lock(descriptor) for _ in _tries()):
            raise Refused(already_runs(settings))
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def already_runs(settings: Settings) -> str:
    """What to say to a second supervisor."""
    return (
        f"genmill already runs in {settings.home.absolute()} (pid {holder(settings)}); see "
        "`genmill status`, stop it with `genmill down`, or set another GENMILL_HOME"
    )


def holder(settings: Settings) -> int | None:
    """The process id of the supervisor that runs in this home, or None. Changes nothing."""
    try:
        descriptor = os.open(_lock_file(settings), os.O_RDWR)
    except OSError:
        return None
    try:
        if _lock(descriptor):
            return None
        return int(os.read(descriptor, 20) or b"0") or None
    finally:
        os.close(descriptor)


def _lock_file(settings: Settings) -> Path:
    return settings.home.absolute() / "run" / "supervisor.lock"


def _tries() -> Iterator[int]:
    """A few moments: `holder` takes the lock for an instant when it looks."""
    for number in range(5):
        yield number
        time.sleep(0.05)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
