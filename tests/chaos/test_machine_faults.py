"""A whole machine dies, a backup or its restoration is cut short, a step of the scheduler hangs."""

import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from db.states import FINAL
from scheduler.audit.auditor import Auditor
from tests.chaos.scenarios import NAMED, command, start, work_through
from tests.chaos.trial import (
    FOLDER,
    LEASE_BOUND_S,
    ONE_BY_ONE,
    START_S,
    Trial,
)
from tests.forked import changed
from tests.integration.conftest import PATIENCE_S, ROOT
from tests.integration.test_faults import children, running
from worker.failpoints import HOLD
from worker.services import Services
from worker.settings import Settings

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

HANG_S = 6.0


def genmill(made: Trial, *words: str, **settings: object) -> subprocess.Popen[bytes]:
    """Start a command that goes on; its output is `words[0].log` in the home."""
    environment = made.settings.child_environment(**settings) | {"PYTHONPATH": str(ROOT)}
    with (made.settings.home / f"{words[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scheduler", *words],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=made.settings.home,
            start_new_session=True,
        )
    made.processes.append(process)
    return process


def kill_whole(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that descend from it, at once."""
    found = [process.pid]
    for pid in found:  # which grows meanwhile
        found += children(pid)
    for pid in found:
        with suppress(ProcessLookupError):  # the kernel kills them, too
            os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_up_that_is_killed_whole_goes_on_when_it_is_started_again(trial, places) -> None:
    bound_s = LEASE_BOUND_S + START_S
    made = trial("`up` killed whole", places, bound_s=bound_s, redis_url=None)
    first = genmill(made, "up", "--workers", "2")
    job, others = made.generate(60, params=ONE_BY_ONE), [made.generate(4, seed=n) for n in (1, 2)]
    with made.held():
        made.until("samples", lambda: running(made, job), within_s=PATIENCE_S)
        kill_whole(first)
        made.inject()
    genmill(made, "up", "--workers", "2")
    made.recover(dispatch=False)
    assert made.outcomes(job) == ["lost", "succeeded"]
    assert [made.counted(each) for each in (job, *others)] == [0, 0, 0]


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_step_of_the_scheduler_that_hangs_holds_up_no_other(trial, places) -> None:
    made = trial("a step of the scheduler hangs", places, bound_s=HANG_S + LEASE_BOUND_S)
    NAMED["reaping"].prepare(made)  # a lease that has expired
    (made.settings.home / HOLD).touch()
    stuck = genmill(made, "scheduler", failpoint=f"reaped:{HOLD}", hang_s=HANG_S)
    made.until("the hang", lambda: "reaped" in made.struck())
    made.inject()
    made.worker(failpoint="")
    job = made.generate(4)
    made.until("its end", lambda: made.job(job.id).status in FINAL, within_s=PATIENCE_S)
    assert stuck.wait(PATIENCE_S) == os.EX_TEMPFAIL
    said = (made.settings.home / "scheduler.log").read_text()
    assert f"taking back expired leases has hung for {HANG_S:g} s" in said
    assert "in act" in said  # where it was
    genmill(made, "scheduler", failpoint="")
    made.recover(dispatch=False)


def run(settings: Settings, words: tuple[str, ...], failpoint: str = "") -> int | None:
    """Run a command to its end; its exit code."""
    process = start(command(*words), settings, failpoint, os.environ)
    process.join(PATIENCE_S)
    assert not process.is_alive()
    return process.exitcode


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("action", ["sigkill", "unreachable", "oserror:EIO"])
def test_a_backup_and_its_restoration_may_be_cut_short(
    trial, places, tmp_path: Path, action, nth
) -> None:
    made = trial("backup and restore cut short", places, bound_s=START_S, failpoint="")
    job = made.generate(12, shard_size=4)
    work_through(made, lambda: made.job(job.id).status in FINAL)
    folder = str(tmp_path / "copy")
    backup = ("backup", folder, "--objects", "copy")
    assert run(made.settings, backup, f"store_read:{action}:{nth}") != 0
    assert "store_read" in made.struck()
    made.inject()
    assert not Path(folder).exists()
    assert run(made.settings, backup) == 0, (made.settings.home / "part.log").read_text()
    home = tmp_path / "another"
    home.mkdir()
    nothing = dict.fromkeys(("database_url", "store_url", "s3_endpoint_url"))
    fresh = changed(made.settings, home=home, **nothing)
    assert run(fresh, ("restore", folder), f"store_write:{action}:{nth}") != 0
    made.inject()
    assert run(fresh, ("restore", folder)) == 0, (home / "part.log").read_text()
    assert run(fresh, ("artifact", "verify", job.id)) == 0
    with closing(Services(fresh)) as restored:
        assert [*Auditor(restored).violations()] == []
    made.row.recovered()
    made.check()
