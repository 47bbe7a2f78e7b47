"""`genmill doctor`: one check per part, with what it found and how to fix what is wrong.

It changes nothing. The workers' rows tell which devices they use, so torch is not loaded for them.
"""

import grp
import importlib.metadata
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from db import jobs, past_jobs, schema, setbacks, upkeep, workers
from db.driver_errors import location
from db.errors import GenmillError, Refused
from db.path_errors import as_genmill, is_missing, shown
from db.session import clock
from db.sharing import is_shared
from scheduler.machine.broker import ping
from scheduler.machine.configuration import check_settings
from scheduler.machine.control import has_database
from scheduler.machine.file_systems import sqlite_on_network
from scheduler.machine.home import copied_from, home_error, state_file, supervisor_pid
from scheduler.models.loadable import Fits, look_at_versions
from scheduler.output.render import to_count, to_iso
from worker.environment import PREFIX
from worker.extras import require
from worker.services import Services, open_services
from worker.services.estimates import misjudged_generations, misjudged_trainings
from worker.settings import Settings, read_leniently, settings_given

MIN_FREE_BYTES = 2 * 2**30  # weights, checkpoints and samples of a small model, and some more
MAX_CLOCK_SKEW_S = 5.0
MAX_SETBACK_S = 60.0  # most things that fail work at the second or third try
SHOWN = 5  # items that fail
LOOKED_AT = 3  # models, whose jobs' estimates are compared with what they took
MAX_ROUND_S = 120.0  # a scheduler whose round takes longer hangs: services time out sooner

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
            except Exception as problem:  # a part that cannot be looked at is a finding too
                error = _as_finding(problem)
                ok, found, remedy = False, error.message, error.remedy or ""
            results.append({"check": name, "ok": ok, "found": found, "remedy": remedy})
    finally:
        services.close()
    return results


def _as_finding(problem: Exception) -> GenmillError:
    if isinstance(problem, GenmillError | OSError):
        return as_genmill(problem)
    what = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
    return GenmillError(f"could not be checked: {what}", remedy="report it, with this line")


def settings_to_examine() -> Settings:
    """The settings as far as they can be read: what is wrong with the others is a finding."""
    try:
        return read_leniently()[0]
    except GenmillError:
        return read_leniently(with_file=False)[0]


def _settings(_: Services) -> str:
    wrong = [each for each in check_settings() if not each["ok"]]
    if wrong:
        found = [_told(each["setting"], each["found"]) for each in wrong]
        remedies = dict.fromkeys(each["remedy"] for each in wrong)
        raise GenmillError("; ".join(found), remedy="; ".join(filter(None, remedies)))
    given = (_given(name, file) for name, file in settings_given().items())
    return ", ".join(given) or "all have their defaults"


def _told(setting: str, found: str) -> str:
    """What is wrong with a setting, with its name unless that is part of it."""
    return found if setting.removeprefix(PREFIX) in found else f"{setting}: {found}"


def _given(name: str, file: Path | None) -> str:
    return f"GENMILL_{name}" + (f" (from {shown(file)})" if file else "")


def _home(services: Services) -> str:
    home = services.settings.home.absolute()
    try:
        with tempfile.TemporaryFile(dir=_nearest(home)):
            found = _sharing(home) if home.exists() else "created by `genmill up`"
    except OSError as error:
        raise home_error(services.settings, error) from None
    if problem := sqlite_on_network(services.settings):
        raise problem
    return f"{home}, {found}"


def _sharing(home: Path) -> str:
    """Who can get at what is in a home that is there."""
    status = home.stat()
    shared = is_shared(home)
    found = f"writable, shared by the group {_group(status.st_gid)}" if shared else "writable"
    others = stat.S_IRWXO if shared else stat.S_IRWXG | stat.S_IRWXO
    inside = (path.stat().st_mode for path in home.iterdir() if not path.is_symlink())
    if status.st_mode & others and any(mode & others for mode in inside):
        # made by hand, or by an earlier version
        found += f", open to other users: `chmod -R {'o' if shared else 'go'}= {home}` closes it"
    return found


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:  # a container's group may have no name
        return str(number)


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
        return f"`genmill up` runs in this home, process {pid}"
    if state_file(services.settings).exists():
        if came_from := copied_from(services.settings):
            return f"`genmill up` does not run in this home, copied or moved from {came_from}"
        raise GenmillError("`genmill up` was killed", remedy="start it again with `genmill up`")
    return "`genmill up` does not run in this home; a cluster needs none"


def _scheduler(services: Services) -> str:
    file = services.settings.scheduler_file
    if not file.exists():
        return "no scheduler has run in this home"
    age_s = time.time() - file.stat().st_mtime
    found = f"looked for work {age_s:.0f} s ago"
    if age_s > max(MAX_ROUND_S, 3 * services.settings.loop_s):
        raise GenmillError(
            found, remedy="see its log, and restart it: `genmill up` or `genmill scheduler`"
        )
    return found


def _database(services: Services) -> str:
    if not has_database(services.settings):
        raise GenmillError("not created yet", remedy="run `genmill up` or `genmill db upgrade`")
    schema.check(services.database)
    return f"{location(services.database.url)}, with the tables of this version ({schema.HEAD})"


def _upkeep(services: Services) -> str:
    if not has_database(services.settings):
        return "there is no database yet"
    with services.database.read() as session:
        problems = upkeep.problems(session)
    if problems:
        raise GenmillError(
            "; ".join(each.found for each in problems),
            remedy="; ".join(dict.fromkeys(each.remedy for each in problems)),
        )
    return "the database removes rows that are no longer needed"


def _setbacks(services: Services) -> str:
    if not has_database(services.settings):
        return "there is no database yet"
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
            remedy="they are tried again and delay nothing else; the scheduler's log says more",
        )
    return "nothing has failed for longer than a minute"


def _clock(services: Services) -> str:
    if not has_database(services.settings):
        return "there is no database yet to compare with"
    with services.database.read() as session:
        skew_s = abs((datetime.now(UTC) - clock(session)).total_seconds())
    if skew_s > MAX_CLOCK_SKEW_S:
        raise GenmillError(
            f"this machine's clock is {skew_s:.0f} s apart from the database's",
            remedy="synchronise this machine's clock (NTP), or times in its logs will mislead",
        )
    return f"this machine's clock agrees with the database's to {skew_s:.1f} s"


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


def _keys(services: Services) -> str:
    if not has_database(services.settings):
        return "there is no database yet"
    from worker.keys.keyring import load_keyring  # noqa: PLC0415 - loads cryptography

    with services.database.read() as session:
        ring = load_keyring(session, services.settings)
    return ring.examine() if ring.keys else "there are none: `genmill key create` makes them"


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
        raise GenmillError("no worker runs", remedy=remedy)
    with services.database.read() as session:
        live = workers.live(session, within_s=services.settings.lease_s)
        waiting = jobs.counts(session)["queued"]
    if not live:
        raise GenmillError(
            f"no worker runs, with {to_count(waiting, 'job')} waiting", remedy=remedy
        )
    return ", ".join(f"{worker.host}:{worker.pid} on {worker.device}" for worker in live)


def _estimates(services: Services) -> str:
    if not has_database(services.settings):
        return "no database to look at"
    with services.database.read() as session:
        models = past_jobs.recent_models(session, LOOKED_AT)
        generations = [past_jobs.generations(session, model) for model in models]
        trainings = past_jobs.trainings(session)
    found = [*misjudged_generations(generations), *misjudged_trainings(trainings)]
    told = [f"{each.what} {each.factor:.1f} times ({to_count(each.jobs, 'job')})" for each in found]
    if not told:
        return "too few jobs have ended to compare estimates with what they took"
    return f"predicted against real, half are off by less than: {', '.join(told)}"


def _torch(_: Services) -> str:
    require("worker", "a worker", remedy="leave it if this machine only submits jobs")
    return f"PyTorch {importlib.metadata.version('torch')}"


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
    "keys": _keys,
    "models": _models,
    "workers": _workers,
    "estimates": _estimates,
    "torch": _torch,
}
