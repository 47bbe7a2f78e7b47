"""Points where a process crashes, freezes, waits or fails on purpose, for tests of what must hold.

`GENMILL_FAILPOINT=name[:action[:nth]]` acts when a process reaches the point `name`, each time or
only the `nth` time; several are joined by commas. `POINTS` lists the names. The actions:

    sigkill      kill this process, and a worker's parent with it; the default
    stop         stop them with SIGSTOP; SIGCONT lets them go on
    hold         wait as long as the home has a file `hold`
    note         nothing but the note
    refused, unreachable, memory, unknown, panic
                 raise an error of that class
    device       raise that of a device without memory, where there is torch: else as `memory`
    oserror:NAME raise `OSError` with the errno `NAME`, as in `oserror:ENOSPC`

Each time, a line is added to the home's file `failpoints.log` first. `hold` alone pauses the work
between two steps, but not beyond an order to stop. A setting that names anything else is refused
by every process that reads it.
"""

import errno
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Protocol

from db.errors import Refused, Unreachable

if TYPE_CHECKING:
    from pathlib import Path

HOLD = "hold"
LOG = "failpoints.log"
POLL_S = 0.02

POINTS = {
    # a worker, in the order of a shard's life
    "booting": "A worker's child boots; it has no row yet.",
    "received": "A doorbell has been received and nothing claimed for it.",
    "claimed": "Shards are claimed and their work has not begun.",
    "beat": "The heartbeat is about to renew the leases.",
    HOLD: "Between two steps of the work: waits while the home has a file `hold`.",
    "step": "Between two steps of the work.",
    "checkpoint_stored": "A checkpoint is in the store and not on record.",
    "put_after": "The shards' objects are stored and the commit has not begun.",
    "flushed": "All that the commit is about to name is durable.",
    "committed": "The commit has been recorded.",
    "reporting": "A failed or released shard is about to be reported.",
    "publication_begun": "Items are on record that are about to be put at a target.",
    "publication_put": "An item is at a target and not verified.",
    "publication_fetched": "An item was given back by its target, and it is not on record.",
    "publication_recorded": "What became of some items is on record.",
    "publication_removed": "Items are taken down at a target, and this is not on record.",
    "publication_finished": "A target's pages are made, and the shard is not committed.",
    # a worker or a scheduler
    "settled": "A job's last shard is done and its manifest is not stored.",
    "manifest_stored": "A job's manifest is stored and the job has not succeeded.",
    "finalized": "A job has succeeded.",
    # a scheduler
    "schedule_prepared": "A due schedule's jobs are prepared and not inserted.",
    "reaped": "Expired leases have been taken back.",
    "chain_pinned": "The next job of a chain is pinned and not queued.",
    "chain_released": "The next job of a chain is queued.",
    "dispatched": "Shards are marked as dispatched and not rung for.",
    "rung": "Doorbells have been sent.",
    "collected": "A job's garbage is deleted and the job not marked.",
    # a command
    "enqueued": "Jobs are stored and not rung for; a command has not printed their ids.",
    "batch_piece": "A piece of a batch is stored; the batch is not complete.",
    "dataset_stored": "A dataset's objects are stored and the version is not on record.",
    "model_stored": "A model's files are stored and the version is not on record.",
    "part_fetched": "An object of a download is fetched and not unpacked.",
    "broker_started": "The broker of `genmill up` has started.",
    "child_started": "The scheduler or a worker of `genmill up` has started.",
    # any process: what the points above do not name lies between two of these
    "record_write": "A write transaction is about to begin.",
    "record_written": "A write transaction is committed; an error here is a reply that was lost.",
    "store_write": "An object is about to be stored.",
    "store_written": "An object is stored.",
    "store_read": "An object is about to be read.",
    "store_delete": "An object is about to be deleted.",
    "store_deleted": "An object is deleted.",
}


class Panic(BaseException):
    """What the bindings of native code raise when it panics: no `Exception`."""


def _out_of_memory(text: str) -> BaseException:
    """Torch's error, which this module must not import: the scheduler reads it, too."""
    kind = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)
    error: BaseException = kind(text)
    return error


_ERRORS: dict[str, Callable[[str], BaseException]] = {
    "refused": Refused,
    "unreachable": Unreachable,
    "memory": MemoryError,
    "device": _out_of_memory,
    "unknown": KeyError,
    "panic": Panic,
}
ACTIONS = ("sigkill", "stop", HOLD, "note", *_ERRORS)

_ERRNOS = [*filter(str.isupper, vars(errno))]
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_reached: Counter[tuple[object, ...]] = Counter()
_also_struck: list[int] = []  # processes that share this one's signals


@dataclass(frozen=True)
class Failpoint:
    """What happens at a point; without `nth`, each time."""

    name: str
    action: str = "sigkill"
    nth: int | None = None

    def act(self, home: "Path") -> None:
        """Strike this process."""
        note(home, self)
        if self.action == "sigkill":
            _signal(signal.SIGKILL)
        elif self.action == "stop":
            _signal(signal.SIGSTOP)
        elif self.action == HOLD:
            while (home / HOLD).exists():
                time.sleep(POLL_S)
        elif self.action != "note":
            raise self._error()

    def _error(self) -> BaseException:
        kind, _, name = self.action.partition(":")
        if kind == "oserror":
            code: int = getattr(errno, name)
            return OSError(code, os.strerror(code))
        return _ERRORS[kind](f"failpoint {self.name}")


class Places(Protocol):
    """The settings that tell where a process acts, and its home."""

    @property
    def failpoint(self) -> str:
        """The failpoints."""

    @property
    def home(self) -> "Path":
        """The folder that holds the log of those that have acted."""


@cache
def parse(text: str) -> tuple[Failpoint, ...]:
    """The failpoints that the setting names. Raises `Refused` for an unknown name or action."""
    return tuple(_parse_one(each) for each in text.split(",") if each)


def reach(settings: Places, name: str) -> None:
    """Note that the process is at this point: it acts if the settings name the point."""
    if settings.failpoint:
        _strike(settings.failpoint, settings.home, name)


def wait_while_held(settings: Places, *, until: Callable[[], object]) -> None:
    """Wait at the point `hold`, but not beyond the moment that `until` becomes true."""
    if not settings.failpoint or all(each.name != HOLD for each in parse(settings.failpoint)):
        return
    while (settings.home / HOLD).exists() and not until():
        time.sleep(POLL_S)


def strike_parent_too() -> None:
    """In a worker's child: from now on, signals strike its parent as well."""
    _also_struck[:] = [os.getppid()]


def watch_database(database: object, settings: Places) -> None:
    """Reach a point before and after each write transaction of a `db.session.Database`."""
    write: Callable[[], AbstractContextManager[Any]] = database.write  # type: ignore[attr-defined] # importing it is slow

    @contextmanager
    def watched() -> Iterator[Any]:
        reach(settings, "record_write")
        with write() as session:
            yield session
        reach(settings, "record_written")

    database.write = watched  # type: ignore[attr-defined] # as above


def watch_store(store: object, settings: Places) -> None:
    """Reach a point before and after each change of a `worker.store.ObjectStore`."""
    for method in ("put", "put_bytes", "put_as"):
        _watch(store, method, settings, before="store_write", after="store_written")
    _watch(store, "delete", settings, before="store_delete", after="store_deleted")
    for method in ("open", "fetch"):
        _watch(store, method, settings, before="store_read")


def note(home: "Path", failpoint: Failpoint) -> None:
    """Add a line to the home's log: the point, the action and the process."""
    with suppress(OSError), (home / LOG).open("a") as file:
        file.write(f"{failpoint.name} {failpoint.action} {os.getpid()}\n")


def _watch(
    target: object, method: str, settings: Places, *, before: str, after: str | None = None
) -> None:
    call = getattr(target, method)

    @wraps(call)
    def watched(*arguments: Any, **more: Any) -> Any:
        reach(settings, before)
        result = call(*arguments, **more)
        if after is not None:
            reach(settings, after)
        return result

    setattr(target, method, watched)


def _strike(text: str, home: "Path", name: str) -> None:
    for each in parse(text):
        if each.name == name and name != HOLD:
            _reached[text, home, name, each] += 1
            if each.nth in (None, _reached[text, home, name, each]):
                each.act(home)


def _parse_one(text: str) -> Failpoint:
    name, _, action = text.partition(":")
    nth = ""
    if action.rpartition(":")[2][:1].isdigit():
        action, _, nth = action.rpartition(":")
    try:
        _refuse_unknown("failpoint", name, POINTS)
        kind, _, code = action.partition(":")
        if kind == "oserror":
            _refuse_unknown("errno", code, _ERRNOS)
        elif action:
            _refuse_unknown("action", action, (*ACTIONS, "oserror:NAME"))
        if nth and not _NUMBER.fullmatch(nth):
            raise Refused(f"{nth} is not a number from 1 to 999999")
    except Refused as error:
        raise Refused(
            f"GENMILL_FAILPOINT: {text!r} is not a failpoint: {error.message}",
            remedy=f"use NAME:ACTION:NTH; names: {', '.join(POINTS)}; "
            f"actions: {', '.join(ACTIONS)}, oserror:NAME",
        ) from None
    return Failpoint(name, action or "sigkill", int(nth) if nth else None)


def _refuse_unknown(noun: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise Refused.unknown(noun, name, known)


def _signal(number: signal.Signals) -> None:
    for pid in (*_also_struck, os.getpid()):
        os.kill(pid, number)
