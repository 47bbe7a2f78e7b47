"""Controlling the system on one machine: `genmill up`, `down` and `status`."""

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from db import jobs, progress, schema, workers
from db.database_url import parse_url
from db.errors import GenmillError
from db.path_errors import is_missing
from db.readable import Unreadable, read_each
from db.states import JobState
from db.tables import Job
from scheduler.machine.broker import ping
from scheduler.machine.child_process import kill_with_parent, last_error
from scheduler.machine.file_systems import sqlite_on_network
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
from worker.extras import require
from worker.files import disk_errors
from worker.services import open_services
from worker.settings import Settings

START_TIMEOUT_S = 120.0  # each worker imports torch, which is slow the first time
START_TRIES = 3  # restarts before all are ready, after which nobody waits any more
STOP_TIMEOUT_S = DRAIN_TIMEOUT_S + 2 * BROKER_STOP_TIMEOUT_S
POLL_S = 0.1
SHOWN = 10  # running jobs


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

    With `detach`, return once all workers are live. Raises `MissingPackage` if a worker could not
    run here, `Refused` if it already runs in this home or the home cannot be used, and
    `Unreachable` if a configured service does not answer.
    """
    count = 1 if workers is None else workers
    if count:
        rest = "start the rest alone with `genmill up --workers 0`"
        require("worker", "a worker", remedy=rest)
    _prepare(settings, say)
    with disk_errors(settings.home.absolute()):
        if detach:
            _detach(settings, count, say)
        else:
            _supervise(settings, count, say)


@contextlib.contextmanager
def running(settings: Settings, *, workers: int, say: Say = say_on_stderr) -> Iterator[None]:
    """Run everything, as `up` does, inside the block.

    All of it ends with the block, however that ends; if this process is killed, the kernel kills
    the rest (on Linux).
    """
    if workers:
        require("worker", "a worker")
    _prepare(settings, say)
    with disk_errors(settings.home.absolute()):
        process = _start(settings, workers, ends_with=os.getpid())
    try:
        wait_until_ready(settings, process)
        say(f"ready, with {to_count(workers, 'worker')}")
        yield
    finally:
        _stop(process)
        say("stopped")


def _prepare(settings: Settings, say: Say) -> None:
    """Make the home; say what the user may not expect of it."""
    create_home(settings)
    if problem := sqlite_on_network(settings):
        say(f"warning: {problem}")


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
    deadline = time.monotonic() + STOP_TIMEOUT_S
    try:
        os.kill(pid, signal.SIGTERM)
        while supervisor_pid(settings) == pid:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)  # its children die with it
            time.sleep(POLL_S)
    except ProcessLookupError:
        pass  # it has ended meanwhile
    except PermissionError:
        raise GenmillError(
            f"{settings.home.absolute()} is run by another user (pid {pid})",
            remedy="only that user and root can stop it",
        ) from None
    say("stopped")
    return True


def status(settings: Settings) -> dict[str, Any]:
    """What runs in this home, and the jobs in each state; errors of services are part of it."""
    state = read_state(settings) if supervisor_pid(settings) else {}
    try:
        broker = f"{ping(settings)} at {settings.broker}"
    except GenmillError as error:
        broker = (
            str(error) if state or settings.redis_url else "not running; `genmill up` starts it"
        )
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
    """Start the supervisor and wait until it is ready."""
    process = _start(settings, count)
    try:
        wait_until_ready(settings, process)
    except KeyboardInterrupt:
        _stop(process)
        raise
    say(f"ready, with {to_count(count, 'worker')}; stop with `genmill down`")


def _start(
    settings: Settings, count: int, *, ends_with: int | None = None
) -> subprocess.Popen[bytes]:
    """Start the supervisor in its own session; the kernel kills it with process `ends_with`."""
    if supervisor_pid(settings):
        raise already_running_error(settings)
    with open_log(log_folder(settings) / "up.log") as log:
        return subprocess.Popen(  # noqa: S603 - our own command, no shell
            genmill_command("up", "--workers", str(count)),
            env=settings.child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # no thread holds a lock that `prctl` needs
            preexec_fn=kill_with_parent(ends_with) if ends_with else None,  # noqa: PLW1509 - see above
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a supervisor; whoever interrupts this has it kill what still runs."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while process.poll() is None:
        try:
            process.terminate()
            process.wait(max(POLL_S, deadline - time.monotonic()))
        except KeyboardInterrupt:
            continue
        except subprocess.TimeoutExpired:
            process.kill()  # its children die with it
            deadline = math.inf


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
        if state.get("pid") == process.pid:
            _refuse_failing_process(state)
        if time.monotonic() > deadline:
            raise GenmillError(
                f"not ready after {START_TIMEOUT_S:g} s, but still starting",
                remedy=f"see {log_folder(settings)}",
            )
        time.sleep(POLL_S)


def _refuse_failing_process(state: dict[str, Any]) -> None:
    """Raise if a process has failed so often that it will hardly start."""
    for process in state.get("processes", ()):
        if process["restarts"] >= START_TRIES:
            log = process["log"]
            raise GenmillError(
                f"{process['name']} has failed {START_TRIES} times, and is started again and again"
                f": {last_error(Path(log)) or process['last_exit']}",
                remedy=f"see {log}; `genmill down` stops everything",
            )


def _database_status(settings: Settings) -> dict[str, Any]:
    """The number of jobs in each state, and the live workers on any machine."""
    services = open_services(settings)
    try:
        if not has_database(settings):
            return {"database": "not created yet", "jobs": {}, "under_way": [], "workers": []}
        schema.check(services.database)  # with another version's tables, what follows would fail
        with services.database.read() as session:
            live = workers.live(session, within_s=settings.lease_s)
            under_way, bad = _under_way(session)
            return {
                "database": "; ".join(f"job {name}: {error}" for name, error in bad) or "ok",
                "jobs": jobs.counts(session),
                "under_way": under_way,
                "workers": [
                    {"id": w.boot_id, "host": w.host, "pid": w.pid, "device": w.device}
                    for w in live
                ],
            }
    except GenmillError as error:
        return {"database": str(error), "jobs": {}, "under_way": [], "workers": []}
    finally:
        services.close()


def _under_way(session: Session) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    """Some of the jobs that run now, newest first, with their progress; and damaged ones."""

    def make(rows: Sequence[tuple[Job]]) -> list[dict[str, Any]]:
        running = [job for (job,) in rows]
        done = progress.of(session, running)
        return [
            {"id": job.id, "kind": job.kind, "model": job.model, "progress": done[job.id]}
            for job in running
        ]

    ids = jobs.newest(session, status=JobState.RUNNING, limit=SHOWN)
    return read_each(session, jobs.select_jobs(ids), make)


def has_database(settings: Settings) -> bool:
    """False if the database is a missing SQLite file, which connecting would create."""
    url = parse_url(settings.database)
    return url.get_backend_name() != "sqlite" or not is_missing(Path(str(url.database)))
