"""A machine's home folder, and the files in it by which processes find the supervisor.

The lock tells whether one runs, the state what it runs, and the failure why it could not start.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from db import errors
from db.errors import GenmillError, Refused
from db.path_errors import explain, shown, target_at_fault
from db.sharing import file_mode, folder_mode, is_shared
from worker import own_broker
from worker.files import open_no_link
from worker.settings import Settings

LOCK_TRIES = 5  # `supervisor_pid` holds the lock for an instant when it looks
LOCK_PAUSE_S = 0.05


def create_home(settings: Settings) -> None:
    """Create the home, for its owner alone; one that a group shares was made by hand.

    Raises `Refused` if it cannot be used.
    """
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_folder(settings).mkdir(mode=folder_mode(settings.home), exist_ok=True)
        private_folder(_lock_file(settings).parent, shared=is_shared(settings.home))
    except OSError as error:
        raise home_error(settings, error) from None


def private_folder(folder: Path, *, shared: bool = False) -> Path:
    """Create `folder`, for its owner alone or, if `shared`, for the group of the folder above.

    Raises `Refused` if it is another user's and not shared.
    """
    folder.mkdir(mode=0o770 if shared else 0o700, parents=True, exist_ok=True)
    is_own = folder.lstat().st_uid == os.getuid()
    if folder.is_symlink() or not (is_own or shared):
        raise Refused(
            f"{folder} is not a folder of this user", remedy="remove it, or set GENMILL_HOME"
        )
    if not shared:
        folder.chmod(0o700)
    return folder


def home_error(settings: Settings, error: OSError) -> Refused:
    """The error for a home that cannot be used."""
    home = settings.home.absolute()
    at_fault = target_at_fault(error, home)
    where = "" if at_fault == home else f" ({shown(at_fault)})"
    return Refused(
        f"the home {shown(home)} cannot be used: {explain(error, at_fault)[0]}{where}",
        remedy="set GENMILL_HOME to a folder that you can write, on a disk with space",
    )


def copied_from(settings: Settings) -> str | None:
    """Where a home came from that was copied or moved since its broker last started, if it was."""
    file = settings.broker_file
    with contextlib.suppress(GenmillError, ValueError):
        return own_broker.origin(own_broker.read_address(file), file.parent)
    return None


def state_file(settings: Settings) -> Path:
    """The file in which the supervisor keeps its state."""
    return settings.home.absolute() / "run" / "state.json"


def log_folder(settings: Settings) -> Path:
    """The folder of the processes' logs."""
    return settings.home.absolute() / "logs"


def read_state(settings: Settings) -> dict[str, Any]:
    """The state that the supervisor last wrote; empty if there is none."""
    return _read_json(state_file(settings))


def write_state(settings: Settings, state: dict[str, Any]) -> None:
    """Write the state; a reader sees the old state or the new one, never half of it."""
    _write_json(state_file(settings), state)


def read_failure(settings: Settings, pid: int) -> GenmillError | None:
    """The error that process `pid` left by `write_failure`, if any."""
    failure = _read_json(state_file(settings).with_name("failure.json"))
    if failure.get("pid") != pid:
        return None
    kind: type[GenmillError] = getattr(errors, failure["type"])
    return kind(failure["message"], remedy=failure["remedy"])


def write_failure(settings: Settings, error: GenmillError) -> None:
    """Leave this process's last error to the process that started it."""
    failure = {"pid": os.getpid(), "message": error.message, "remedy": error.remedy}
    kind = next(each for each in type(error).__mro__ if each.__module__ == errors.__name__)
    _write_json(state_file(settings).with_name("failure.json"), failure | {"type": kind.__name__})


@contextlib.contextmanager
def supervisor_lock(settings: Settings) -> Iterator[int]:
    """Hold the home's lock; yields its file. Raises `Refused` if a supervisor runs or none can.

    The kernel releases the lock when its holder dies for any reason.
    """
    create_home(settings)
    try:
        flags, mode = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, file_mode(settings.home)
        descriptor = os.open(_lock_file(settings), flags, mode)
    except OSError as error:
        raise home_error(settings, error) from None
    try:
        for _ in range(LOCK_TRIES):
            if _try_lock(descriptor):
                break
            time.sleep(LOCK_PAUSE_S)
        else:
            raise already_running_error(settings)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield descriptor
    finally:
        os.close(descriptor)


def is_gone(settings: Settings, lock: int) -> bool:
    """Whether the home of this lock is no longer where it was: it was moved or removed."""
    try:
        return not os.path.samestat(_lock_file(settings).stat(), os.fstat(lock))
    except FileNotFoundError:
        return True


def already_running_error(settings: Settings) -> Refused:
    """The error for a second supervisor in one home."""
    return Refused(
        f"genmill already runs in {settings.home.absolute()} (pid {supervisor_pid(settings)})",
        remedy="see `genmill status`, stop it with `genmill down`, or set another GENMILL_HOME",
    )


def supervisor_pid(settings: Settings) -> int | None:
    """The process id of the supervisor that runs in this home, if any. Changes nothing."""
    try:
        descriptor = os.open(_lock_file(settings), os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if _try_lock(descriptor):
            return None
        return int(os.read(descriptor, 20) or b"0") or None
    finally:
        os.close(descriptor)


def _lock_file(settings: Settings) -> Path:
    return settings.home.absolute() / "run" / "supervisor.lock"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data


def _write_json(path: Path, data: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    with open_no_link(fresh, "wb") as file:
        file.write(json.dumps(data, indent=1).encode())
    fresh.replace(path)
