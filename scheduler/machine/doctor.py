"""`genmill doctor`: one check a part, what was found, and what to do about what is wrong.

Looks and never mends. Whether a GPU is used is asked of the workers' rows, so torch is not loaded.
"""

import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from db import jobs, schema, workers
from db.driver_errors import place
from db.errors import GenmillError, Refused
from db.session import clock
from scheduler.machine import broker
from scheduler.machine.home import holder, state_file
from scheduler.machine.system import has_record
from worker.services import Services, open_services
from worker.settings import Settings, given_names

FREE_BYTES = 2 * 2**30  # weights, checkpoints and samples of a small model, with room to breathe
CLOCK_S = 5.0

Check = Callable[[Services], str]  # what was found; raises `_Wrong` or a `GenmillError`


class _Wrong(GenmillError):
    """Something is wrong, and `remedy` mends it."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


def examine(settings: Settings) -> list[dict[str, Any]]:
    """Every check's result: `check`, `ok`, `found` and `remedy` (empty where all is well)."""
    services = open_services(settings)
    try:
        return [_result(name, check, services) for name, check in CHECKS.items()]
    finally:
        services.close()


def _result(name: str, check: Check, services: Services) -> dict[str, Any]:
    try:
        return {"check": name, "ok": True, "found": check(services), "remedy": ""}
    except _Wrong as wrong:
        return {"check": name, "ok": False, "found": str(wrong), "remedy": wrong.remedy}
    except GenmillError as error:
        # our errors say what to do after the first semicolon
        found, _, remedy = str(error).partition("; ")
        return {"check": name, "ok": False, "found": found, "remedy": remedy}


def _settings(_: Services) -> str:
    known, given = {name.upper() for name in Settings.model_fields}, given_names()
    if strange := sorted(given - known):
        told = [Refused.unknown("GENMILL_ setting", name, known).message for name in strange]
        raise _Wrong(", ".join(told), "nothing reads it: correct its name, or remove it")
    return ", ".join(f"GENMILL_{name}" for name in sorted(given)) or "all by default"


def _home(services: Services) -> str:
    home = services.settings.home.absolute()
    try:
        with tempfile.TemporaryFile(dir=_nearest(home)):
            return f"{home}, writable" if home.exists() else f"{home}, made at the first `up`"
    except OSError as error:
        raise _Wrong(
            f"{home}: {error.strerror}", "set GENMILL_HOME to a folder that you can write"
        ) from None


def _space(services: Services) -> str:
    usage = shutil.disk_usage(_nearest(services.settings.home.absolute()))
    found = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.0f}"
    if usage.free < FREE_BYTES:
        raise _Wrong(found, "free some space, or set GENMILL_HOME to a folder on a larger disk")
    return found


def _supervisor(services: Services) -> str:
    pid = holder(services.settings)
    if pid is not None:
        return f"runs, pid {pid}"
    if state_file(services.settings).exists():
        raise _Wrong("was killed and left its state behind", "`genmill up` starts it again")
    return "does not run here (a cluster needs none)"


def _database(services: Services) -> str:
    if not has_record(services.settings):
        raise _Wrong("not made yet", "`genmill up`, or `genmill db upgrade`")
    schema.check(services.database)
    return f"{place(services.database.url)}, schema {schema.HEAD}"


def _clock(services: Services) -> str:
    if not has_record(services.settings):
        return "no database to compare with"
    with services.database.read() as session:
        apart_s = abs((datetime.now(UTC) - clock(session)).total_seconds())
    if apart_s > CLOCK_S:
        raise _Wrong(
            f"{apart_s:.0f} s apart from the database's",
            "set this machine's clock by NTP; no decision reads it, but logs will mislead",
        )
    return f"{apart_s:.1f} s apart from the database's"


def _broker(services: Services) -> str:
    return f"{broker.ping(services.settings)} at {broker.place(services.settings)}"


def _store(services: Services) -> str:
    services.store.check()
    return services.settings.store


def _workers(services: Services) -> str:
    if not has_record(services.settings):
        raise _Wrong("none", "`genmill up`, or `genmill worker` on a machine with torch")
    with services.database.read() as session:
        live = workers.live(session, within_s=services.settings.lease_s)
        waiting = jobs.counts(session)["queued"]
    if not live:
        raise _Wrong(
            f"none, and {waiting} job(s) wait",
            "`genmill up`, or `genmill worker` on a machine with torch",
        )
    return ", ".join(f"{worker.host}:{worker.pid} on {worker.device}" for worker in live)


def _torch(_: Services) -> str:
    if importlib.util.find_spec("torch") is None:
        return "not installed: this machine can ask, but not work"
    return "installed"


def _nearest(folder: Path) -> Path:
    """The folder, or its nearest parent that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


CHECKS: dict[str, Check] = {
    "settings": _settings,
    "home": _home,
    "disk": _space,
    "supervisor": _supervisor,
    "database": _database,
    "clock": _clock,
    "broker": _broker,
    "store": _store,
    "workers": _workers,
    "torch": _torch,
}
