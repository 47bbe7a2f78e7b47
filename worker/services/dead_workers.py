"""Workers of this machine that have died: their shards are given back before the leases run out.

Each worker boot keeps a file locked in its home. The kernel releases the lock when the process
dies, for whatever reason, and at no other time: a frozen one keeps it. So no process id is trusted,
which may be another's by now, or mean another process in another container. A file names the boot
of the machine that its lock belongs to, because a shared disk may show it to other machines too.
"""

import fcntl
import logging
import os
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import UUID

from db import shards, workers
from db.sharing import file_mode, folder_mode
from worker.services.connections import Services
from worker.services.loops import Loop

log = logging.getLogger(__name__)

KERNEL_BOOT = Path("/proc/sys/kernel/random/boot_id")


def show_life(home: Path, boot_id: str) -> None:
    """Lock a file for this worker boot, until the process ends. Best effort."""
    folder = _folder(home)
    fresh = folder / f".{boot_id}"
    try:
        folder.parent.mkdir(mode=folder_mode(home), parents=True, exist_ok=True)
        folder.mkdir(mode=folder_mode(home), exist_ok=True)
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, file_mode(home))
        fcntl.flock(file, fcntl.LOCK_EX)  # before it has its name: unlocked, it would mean death
        os.write(file, _machine().encode())
        fresh.replace(folder / boot_id)
    except OSError as error:
        log.warning("if this worker dies, its leases must run out: %s", error)


def end_life(home: Path, boot_id: str) -> None:
    """Remove this worker boot's file, because it ends in order and holds nothing."""
    with suppress(OSError):
        (_folder(home) / boot_id).unlink()


def reap_dead_workers(services: Services) -> int:
    """Give back what dead workers of this home hold, as lost claims; return how many shards."""
    files = {file.name: file for file in _folder(services.settings.home).glob("*")}
    with Loop(services, "taking back from dead workers") as loop:
        return sum(loop.each(files, lambda name: _reap_if_dead(services, files[name])))


def _reap_if_dead(services: Services, file: Path) -> int:
    try:
        boot_id = str(UUID(file.name))
        lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
    except (ValueError, OSError):  # not one of these files, or another process was quicker
        return 0
    try:
        if os.read(lock, 100).decode(errors="replace") != _machine():
            return 0
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _reap(services, boot_id, file)
    except BlockingIOError:  # alive
        return 0
    finally:
        os.close(lock)


def _reap(services: Services, boot_id: str, file: Path) -> int:
    max_claims, count = services.settings.max_claims, 0
    step = partial(shards.reap_worker, owner=boot_id, max_claims=max_claims)
    while reaped := services.database.transact(step):
        count += len(reaped)
    with services.database.read() as session:
        held = shards.holds(session, boot_id)
    if not held:  # else somebody has locked it just now
        services.database.transact(partial(workers.stop, boot_id=boot_id))
        with suppress(FileNotFoundError):
            file.unlink()
    log.warning("a worker died", extra={"worker": boot_id, "shards": count})
    return count


def _folder(home: Path) -> Path:
    return home / "run" / "workers"


def _machine() -> str:
    """This machine, since it was last started."""
    try:
        return KERNEL_BOOT.read_text("ascii").strip()
    except OSError:  # not Linux
        return socket.gethostname()
