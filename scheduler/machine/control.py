"""Controlling the system on one machine: `genmill up`, `down` and `status`."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import click

from db import jobs, schema, workers
from db.database_url import parse_url
from db.errors import GenmillError
from db.path_errors import is_missing
from scheduler.machine.broker import ping
from scheduler.machine.home import (
    already_running_error,
    create_home,
    log_folder,
    read_failure,
    read_state,
    supervisor_pid,
    write_failure,
)
from scheduler.machine.rotating_log import open_log
from scheduler.machine.supervisor import (
    BROKER_STOP_TIMEOUT_S,
    DRAIN_TIMEOUT_S,
    Say,
    Supervisor,
    genmill_command,
)
from scheduler.output.render import to_count
from worker.files import disk_errors
from worker.services import open_services
from worker.settings import Settings

START_TIMEOUT_S = 120.0  # each worker imports torch, which is slow the first time
POLL_S = 0.1


def say_on_stderr(line: str) -> None:
    """Print a line for people, if the terminal is still open."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def up(
    settings: Settings,
    *,
    workers: int | None = None,
    detach: bool = False,
    say: Say = say_on_stderr,
) -> None:
    """Run everything that is not configured elsewhere, until SIGINT, SIGTERM or SIGHUP.

    With `detach`, return once all workers are live. Raises `Refused` if it already runs in this
    home or the home cannot be used, and `Unreachable` if a configured service does not answer.
    """
    count = workers or 1
    create_home(settings)
    with disk_errors(settings.home.absolute()):
        if detach:
            _detach(settings, count, say)
        else:
            _supervise(settings, count, say)


def _supervise(settings: Settings, count: int, say: Say) -> None:
    try:
        Supervisor(settings, workers=count, say=say).run()
    except GenmillError as error:
        with contextlib.suppress(OSError):  # a full disk must not hide the error
            write_failure(settings, error)
        raise


def down(settings: Settings, *, say: Say = say_on_stderr) -> bool:
    """Stop what runs in this home and wait until it has ended; return whether anything ran."""
    pid = supervisor_pid(settings)
    if pid is None:
        say(f"nothing runs in {settings.home.absolute()}")
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DRAIN_TIMEOUT_S + 2 * BROKER_STOP_TIMEOUT_S
    while supervisor_pid(settings) == pid:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)  # its children die with it
        time.sleep(POLL_S)
    say("stopped")
    return True


def status(settings: Settings) -> dict[str, Any]:
    """What runs in this home, and the jobs in each state; errors of services are part of it."""
    state = read_state(settings) if supervisor_pid(settings) else {}
    try:
        broker = f"{ping(settings)} at {settings.broker}"
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
    """Start the supervisor in its own session, and wait until it is ready."""
    if supervisor_pid(settings):
        raise already_running_error(settings)
    with open_log(log_folder(settings) / "up.log") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            genmill_command("up", "--workers", str(count)),
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
    say(f"ready, with {to_count(count, 'worker')}; stop with `genmill down`")


def wait_until_ready(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    """Wait until all workers of the supervisor `process` are live; raise its error if it ends."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (state := read_state(settings)).get("ready") or state["pid"] != process.pid:
        if process.poll() is not None:
            if supervisor_pid(settings):  # one that was started at the same time won
                raise already_running_error(settings)
            raise read_failure(settings, process.pid) or GenmillError(
                f"`genmill up` ended with exit code {process.returncode}",
                remedy=f"see {log_folder(settings) / 'up.log'}",
            )
        if time.monotonic() > deadline:
            raise GenmillError(
                f"not ready after {START_TIMEOUT_S:g} s, but still starting",
                remedy=f"see {log_folder(settings)}",
            )
        time.sleep(POLL_S)


def _database_status(settings: Settings) -> dict[str, Any]:
    """The number of jobs in each state, and the live workers on any machine."""
    services = open_services(settings)
    try:
        if not has_database(settings):
            return {"database": "not created yet", "jobs": {}, "workers": []}
        schema.check(services.database)  # with another version's tables, what follows would fail
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
    """False if the database is a missing SQLite file, which connecting would create."""
    url = parse_url(settings.database)
    return url.get_backend_name() != "sqlite" or not is_missing(Path(str(url.database)))
