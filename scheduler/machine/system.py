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
from db.errors import GenmillError, Refused, Unreachable
from scheduler.machine.broker import broker_address, ping
from scheduler.machine.home import (
    already_running_error,
    holder,
    log_folder,
    make_home,
    read_failure,
    read_state,
    write_failure,
)
from scheduler.machine.rotating_log import open_log
from scheduler.machine.supervisor import DRAIN_S, STOP_S, Say, Supervisor, genmill
from worker.services import open_services
from worker.settings import Settings

START_S = 120.0  # each worker imports torch, slowly at first
STEP_S = 0.1


def say_on_stderr(line: str) -> None:
    """Print for people; stdout is for data. A closed terminal is no reason to stop."""
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

    With `detach`, return once all workers are live. Raises `Refused` where it already runs in this
    home or the home cannot be used, and `Unreachable` where a configured service does not answer.
    """
    count = workers or 1
    make_home(settings)
    if detach:
        _detach(settings, count, say)
        return
    try:
        Supervisor(settings, workers=count, say=say).run()
    except GenmillError as error:
        with contextlib.suppress(OSError):  # a full disk must not hide the error
            write_failure(settings, error.message, error.remedy)
        raise


def down(settings: Settings, *, say: Say = say_on_stderr) -> bool:
    """Stop what runs in this home and wait until it ended; return whether anything ran."""
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
    """What runs in this home and what waits; a service that does not answer is part of it."""
    state = read_state(settings) if holder(settings) else {}
    try:
        broker = f"{ping(settings)} at {broker_address(settings)}"
    except GenmillError as error:
        broker = str(error)
    return {
        "home": str(settings.home.absolute()),
        "running": bool(state),
        "ready": state.get("ready", False),
        "pid": state.get("pid"),
        "processes": state.get("processes", []),
        "broker": broker,
        **_database_status(settings),
    }


def _detach(settings: Settings, count: int, say: Say) -> None:
    """Start the supervisor in its own session, and wait until it is ready or has ended."""
    if holder(settings):
        raise already_running_error(settings)
    with open_log(log_folder(settings) / "up.log") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            genmill("up", "--workers", str(count)),
            env=settings.child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(settings, process)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    say(f"ready, with {count} worker(s); stop with `genmill down`")


def wait_until_ready(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    """Wait until all workers of the supervisor `process` are live; raise its error if it ends."""
    deadline = time.monotonic() + START_S
    while not (state := read_state(settings)).get("ready") or state["pid"] != process.pid:
        if process.poll() is not None:
            if holder(settings):  # another one was started at the same time, and was first
                raise already_running_error(settings)
            raise startup_error(settings, process)
        if time.monotonic() > deadline:
            raise GenmillError(
                f"not ready after {START_S:g} s, but still starting",
                remedy=f"see {log_folder(settings)}",
            )
        time.sleep(STEP_S)


def startup_error(settings: Settings, process: subprocess.Popen[bytes]) -> GenmillError:
    """The error that ended the supervisor `process`; its exit code tells the type."""
    types = {kind.exit_code: kind for kind in (Refused, Unreachable)}
    kind = types.get(process.returncode, GenmillError)
    failure = read_failure(settings)
    if failure.get("pid") == process.pid:
        return kind(failure["message"], remedy=failure["remedy"])
    return kind(
        f"`genmill up` ended with exit code {process.returncode}",
        remedy=f"see {log_folder(settings) / 'up.log'}",
    )


def _database_status(settings: Settings) -> dict[str, Any]:
    """Counts of jobs, and the live workers on any machine."""
    if not has_database(settings):
        return {"database": "not made yet", "jobs": {}, "workers": []}
    services = open_services(settings)
    try:
        with services.database.read() as session:
            live = workers.live(session, within_s=settings.lease_s)
            return {
                "database": "ok",
                "jobs": jobs.counts(session),
                "workers": [
                    {"id": w.boot_id, "host": w.host, "pid": w.pid, "device": w.device}
                    for w in live
                ],
            }
    except GenmillError as error:
        return {"database": str(error), "jobs": {}, "workers": []}
    finally:
        services.close()


def has_database(settings: Settings) -> bool:
    """Whether the database can exist at all: connecting to a missing SQLite file would make it."""
    path = settings.database.partition("sqlite:///")[2]
    return not path or Path(path).exists()
