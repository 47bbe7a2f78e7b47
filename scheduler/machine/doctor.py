"""`genmill doctor`: one check per part, with what it found and how to fix what is wrong.

It changes nothing. The workers' rows tell which devices they use, so torch is not loaded for them.
"""

import importlib.util
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from db import jobs, schema, setbacks, upkeep, workers
from db.driver_errors import location
from db.errors import GenmillError, Refused
from db.path_errors import as_genmill, is_missing, shown
from db.session import clock
from scheduler.machine.broker import ping
from scheduler.machine.control import has_database
from scheduler.machine.home import home_error, state_file, supervisor_pid
from scheduler.models.loadable import Fits, look_at_versions
from scheduler.output.render import to_count, to_iso
from worker.environment import ENV_FILE, env_file_fault
from worker.services import Services, open_services
from worker.settings import ENV_FILE_REMEDY, Settings, settings_given

MIN_FREE_BYTES = 2 * 2**30  # weights, checkpoints and samples of a small model, and some more
MAX_CLOCK_SKEW_S = 5.0
MAX_SETBACK_S = 60.0  # most things that fail work at the second or third try
SHOWN = 5  # items that fail
MAX_ROUND_S = 120.0  # a scheduler whose round takes longer hangs: services time out sooner

OTHERS = stat.S_IRWXG | stat.S_IRWXO

Check = Callable[[Services], str]  # returns what it found; raises `GenmillError` if that is wrong


def examine(
    settings: Settings, names: Sequence[str] = (), *, fits: Fits | None = None
) -> list[dict[str, Any]]:
    """The results of the checks `names`, or of all: `check`, `ok`, `found` and `remedy`.

    `remedy` is empty where all is well. `fits` compares the tensors of models with their networks.
    """
    checks = CHECKS | {"models": partial(_models, fits=fits)}
    for name in names:
        if name not in CHECKS:
            raise Refused.unknown("check", name, CHECKS)
    services, results = open_services(settings), []
    try:
        for name in names or CHECKS:
            ok, remedy = True, ""
            try:
                found = checks[name](services)
            except (GenmillError, OSError) as problem:
                error = as_genmill(problem)
                ok, found, remedy = False, error.message, error.remedy or ""
            results.append({"check": name, "ok": ok, "found": found, "remedy": remedy})
    finally:
        services.close()
    return results


def _settings(_: Services) -> str:
    known, given = {name.upper() for name in Settings.model_fields}, settings_given()
    if strange := sorted(given.keys() - known):
        found = [Refused.unknown("GENMILL_ setting", name, known).message for name in strange]
        raise GenmillError(", ".join(found), remedy="correct the name, or remove the setting")
    if fault := env_file_fault():
        raise GenmillError(f"{ENV_FILE.absolute()} is not read: {fault}", remedy=ENV_FILE_REMEDY)
    return ", ".join(_given(name, file) for name, file in given.items()) or "all defaults"


def _given(name: str, file: Path | None) -> str:
    return f"GENMILL_{name}" + (f" (from {shown(file)})" if file else "")


def _home(services: Services) -> str:
    home = services.settings.home.absolute()
    try:
        with tempfile.TemporaryFile(dir=_nearest(home)):
            found = "writable" if home.exists() else "created by `genmill up`"
            if home.exists() and _is_open(home):  # made by hand, or by an earlier version
                found += f", open to other users: `chmod -R go= {home}` closes it"
            return f"{home}, {found}"
    except OSError as error:
        raise home_error(services.settings, error) from None


def _is_open(home: Path) -> bool:
    """Whether other users can get at anything in the home."""
    return bool(home.stat().st_mode & OTHERS) and any(
        path.stat().st_mode & OTHERS for path in home.iterdir() if not path.is_symlink()
    )


def _space(services: Services) -> str:
    usage = shutil.disk_usage(_nearest(services.settings.home.absolute()))
    found = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.0f}"
    if usage.free < MIN_FREE_BYTES:
        raise GenmillError(
            found, remedy="free some space, or set GENMILL_HOME to a folder on a larger disk"
        )
    return found


def _supervisor(services: Services) -> str:
    pid = supervisor_pid(services.settings)
    if pid is not None:
        return f"running, pid {pid}"
    if state_file(services.settings).exists():
        raise GenmillError("was killed", remedy="start it again with `genmill up`")
    return "not running here (a cluster needs none)"


def _scheduler(services: Services) -> str:
    file = services.settings.scheduler_file
    if not file.exists():
        return "not running in this home"
    age_s = time.time() - file.stat().st_mtime
    found = f"began its last round {age_s:.0f} s ago"
    if age_s > max(MAX_ROUND_S, 3 * services.settings.loop_s):
        raise GenmillError(
            found, remedy="see its log, and restart it: `genmill up` or `genmill scheduler`"
        )
    return found


def _database(services: Services) -> str:
    if not has_database(services.settings):
        raise GenmillError("not created yet", remedy="run `genmill up` or `genmill db upgrade`")
    schema.check(services.database)
    return f"{location(services.database.url)}, schema {schema.HEAD}"


def _upkeep(services: Services) -> str:
    if not has_database(services.settings):
        return "no database to look at"
    with services.database.read() as session:
        problems = upkeep.problems(session)
    if problems:
        raise GenmillError(
            "; ".join(each.found for each in problems),
            remedy="; ".join(dict.fromkeys(each.remedy for each in problems)),
        )
    return "replaced rows are cleaned up"


def _setbacks(services: Services) -> str:
    if not has_database(services.settings):
        return "no database to look at"
    with services.database.read() as session:
        found = setbacks.lasting(session, longer_than_s=MAX_SETBACK_S)
    if found:
        told = [
            f"{each.loop} fails for {each.item} since {to_iso(each.since)}: {each.error}"
            for each in found[:SHOWN]
        ]
        more = [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise GenmillError(
            "; ".join([*told, *more]),
            remedy="they are tried again and hold up nothing else; the scheduler's log says more",
        )
    return "nothing has been failing for long"


def _clock(services: Services) -> str:
    if not has_database(services.settings):
        return "no database to compare with"
    with services.database.read() as session:
        skew_s = abs((datetime.now(UTC) - clock(session)).total_seconds())
    if skew_s > MAX_CLOCK_SKEW_S:
        raise GenmillError(
            f"{skew_s:.0f} s apart from the database's clock",
            remedy="synchronise this machine's clock (NTP), or times in its logs will mislead",
        )
    return f"{skew_s:.1f} s apart from the database's clock"


def _store(services: Services) -> str:
    services.store.check()
    if has_database(services.settings):
        services.store.verify()
    limits = services.store.limits()
    found = "; ".join([services.settings.store, *map(str, limits)])
    if not all(limit.covered for limit in limits):
        raise GenmillError(
            found, remedy="allow it by the bucket's policy, or use a server that can do it"
        )
    return found


def _models(services: Services, fits: Fits | None = None) -> str:
    if not has_database(services.settings):
        return "no database to look at"
    schema.check(services.database)
    looked = look_at_versions(services, fits)
    if wrong := looked.unloadable:
        told = [f"{each.version} would not load: {each.found}" for each in wrong[:SHOWN]]
        more = [f"{len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise GenmillError(
            "; ".join([*told, *more]),
            remedy="; ".join(dict.fromkeys(each.remedy for each in wrong[:SHOWN])),
        )
    return str(looked)


def _workers(services: Services) -> str:
    remedy = "run `genmill up`, or `genmill worker` on a machine with torch"
    if not has_database(services.settings):
        raise GenmillError("none", remedy=remedy)
    with services.database.read() as session:
        live = workers.live(session, within_s=services.settings.lease_s)
        waiting = jobs.counts(session)["queued"]
    if not live:
        raise GenmillError(f"none, with {to_count(waiting, 'job')} waiting", remedy=remedy)
    return ", ".join(f"{worker.host}:{worker.pid} on {worker.device}" for worker in live)


def _nearest(folder: Path) -> Path:
    """The folder, or its nearest parent that is there, even if it cannot be used."""
    return next(path for path in (folder, *folder.parents) if not is_missing(path))


CHECKS: dict[str, Check] = {
    "settings": _settings,
    "home": _home,
    "disk": _space,
    "supervisor": _supervisor,
    "scheduler": _scheduler,
    "database": _database,
    "upkeep": _upkeep,
    "setbacks": _setbacks,
    "clock": _clock,
    "broker": lambda services: f"{ping(services.settings)} at {services.settings.broker}",
    "store": _store,
    "models": _models,
    "workers": _workers,
    "torch": lambda _: (
        "installed"
        if importlib.util.find_spec("torch")
        else "not installed: this machine can submit jobs, but not run them"
    ),
}
