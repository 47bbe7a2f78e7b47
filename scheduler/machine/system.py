"""`genmill up`, `down` and `status`: the whole system on one machine."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import click

from db import jobs, workers
from db.errors import GenmillError, Refused
from scheduler.machine.broker import ping, place
from scheduler.machine.child_process import fresh_log
from scheduler.machine.home import already_runs, holder, log_folder, make_home, read_state
from scheduler.machine.supervisor import DRAIN_S, STOP_S, Say, Supervisor, genmill
from worker.services import Services, open_services
from worker.settings import Settings

START_S = 120.0  # a cold start imports torch once a worker
STEP_S = 0.1


def say_on_stderr(line: str) -> None:
    """Tell people something; stdout is for data. A terminal that is gone is no reason to stop."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def up(
    settings: Settings,
    *,
    workers: int | None = None,
    detach: bool = False,
    say: Say = say_on_stderr,
) -> None:
    """Run everything that is not configured elsewhere, until told to stop.

    With `detach`, return once all workers are there. Raises `Refused` where it already runs in this
    home or the home cannot be used, and `Unreachable` where a configured service does not answer.
    """
    count = workers or 1
    make_home(settings)
    if detach:
        _detach(settings, count, say)
    else:
        Supervisor(settings, workers=count, say=say).run()


def down(settings: Settings, *, say: Say = say_on_stderr) -> bool:
    """Stop what runs in this home and wait for its end; say whether anything ran."""
    pid = holder(settings)
    if pid is None:
        say(f"nothing runs in {settings.home.absolute()}")
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DRAIN_S + 2 * STOP_S
    while holder(settings) == pid:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)  # its children die with it
        time.sleep(STEP_S)
    say("stopped")
    return True


def status(settings: Settings) -> dict[str, Any]:
    """What runs in this home and what waits. Services that do not answer are told, not raised."""
    state = read_state(settings) if holder(settings) else {}
    return {
        "home": str(settings.home.absolute()),
        "running": bool(state),
        "ready": state.get("ready", False),
        "pid": state.get("pid"),
        "processes": state.get("processes", []),
        "broker": _broker(settings),
        **_record(settings),
    }


def _detach(settings: Settings, count: int, say: Say) -> None:
    """Start the supervisor in its own session, and wait until it is ready or has ended."""
    if holder(settings):
        raise Refused(already_runs(settings))
    with fresh_log(log_folder(settings) / "up.log") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            genmill("up", "--workers", str(count)),
            env=settings.child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(settings, process, Path(log.name))
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    say(f"ready, with {count} worker(s); stop with `genmill down`")


def wait_until_ready(settings: Settings, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the supervisor `process` has all workers; where it ends instead, say why."""
    deadline = time.monotonic() + START_S
    while not (state := read_state(settings)).get("ready") or state["pid"] != process.pid:
        if process.poll() is not None:
            if holder(settings):  # another one was started at the same time, and was first
                raise Refused(already_runs(settings))
            raise _as_it_said(log, process.returncode)
        if time.monotonic() > deadline:
            raise GenmillError(
                f"not ready after {START_S:g} s; it goes on starting: see {log.parent}"
            )
        time.sleep(STEP_S)


def _as_it_said(log: Path, code: int) -> GenmillError:
    """The error that ended the supervisor, with its exit code."""
    lines = log.read_text("utf-8", "replace").strip().splitlines() or [
        "it ended without a word; see `genmill doctor`"
    ]
    error = GenmillError(lines[-1].removeprefix("Error: "))
    error.exit_code = code or 1
    return error


def _broker(settings: Settings) -> str:
    try:
        return f"{ping(settings)} at {place(settings)}"
    except GenmillError as error:
        return str(error)


def _record(settings: Settings) -> dict[str, Any]:
    """Counts of jobs, and the workers whose heartbeat is fresh, on any machine."""
    if not has_record(settings):
        return {"database": "not made yet", "jobs": {}, "workers": []}
    services = open_services(settings)
    try:
        return {"database": "ok", **_counts(services)}
    except GenmillError as error:
        return {"database": str(error), "jobs": {}, "workers": []}
    finally:
        services.close()


def _counts(services: Services) -> dict[str, Any]:
    with services.database.read() as session:
        live = workers.live(session, within_s=services.settings.lease_s)
        return {
            "jobs": jobs.counts(session),
            "workers": [
                {"id": w.boot_id, "host": w.host, "pid": w.pid, "device": w.device} for w in live
            ],
        }


def has_record(settings: Settings) -> bool:
    """Whether the database can be there at all: looking at a missing SQLite file would make it."""
    path = settings.database.partition("sqlite:///")[2]
    return not path or Path(path).exists()
