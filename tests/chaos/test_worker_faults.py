"""A worker dies, freezes, drains, hangs or runs short of memory while it works."""

import os
import signal

import pytest

from db import jobs
from db.states import FINAL
from tests.chaos.scenarios import NAMED, start
from tests.chaos.trial import (
    FOLDER,
    LEASE_BOUND_S,
    ONE_BY_ONE,
    RING_BOUND_S,
    START_S,
    Trial,
)
from tests.integration.conftest import PATIENCE_S
from tests.integration.test_faults import children
from worker.failpoints import HOLD

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

HANG_S = 15.0  # in which a child must have begun, on a busy machine


@pytest.mark.parametrize(
    ("stage", "point", "outcomes"),
    [
        ("received", "received", ["succeeded"]),
        ("generating", "step", ["lost", "succeeded"]),
        ("after put", "put_after", ["lost", "succeeded"]),
        ("after commit", "committed", ["succeeded"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_worker_killed_at_a_stage_leaves_one_artifact(trial, places, stage, point, outcomes):
    made = trial(f"SIGKILL: {stage}", places, bound_s=max(LEASE_BOUND_S, RING_BOUND_S))
    job = made.generate(5)
    assert made.worker(failpoint=point).wait(timeout=PATIENCE_S) == -signal.SIGKILL
    made.inject()
    made.worker()
    made.recover()
    assert made.outcomes(job) == outcomes
    assert len(made.digests(job.id)) == 5


def test_a_worker_whose_whole_group_is_killed_leaves_one_artifact(trial, places) -> None:
    made = trial("SIGKILL: the whole group", places, bound_s=LEASE_BOUND_S)
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        victim = made.start(job)
        os.killpg(victim.pid, signal.SIGKILL)
        made.inject()
    made.worker()
    made.recover()
    assert made.outcomes(job) == ["lost", "succeeded"]


def test_a_zombie_commits_nothing_and_fails_nothing(trial, places) -> None:
    made = trial("SIGSTOP for three leases, SIGCONT", places, bound_s=LEASE_BOUND_S)
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        zombie = made.start(job)
        os.killpg(zombie.pid, signal.SIGSTOP)
        made.inject()
        made.wait("the lease's end", lambda: made.outcomes(job) == ["lost"])
    made.worker()
    made.recover()
    before = made.digests(job.id)
    os.killpg(zombie.pid, signal.SIGCONT)
    after = made.generate(2)
    made.recover()
    assert made.outcomes(job) == ["lost", "succeeded"]
    assert made.digests(job.id) == before
    assert made.job(after.id).status == "succeeded"


@pytest.mark.parametrize("whole", [False, True], ids=["parent", "group"])
def test_a_drained_worker_gives_its_shard_back(trial, places, whole) -> None:
    made = trial("SIGTERM", places, bound_s=START_S)
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        worker = made.start(job)
        (os.killpg if whole else os.kill)(worker.pid, signal.SIGTERM)
        made.inject()
        assert worker.wait(timeout=PATIENCE_S) == 0
    made.worker()
    made.recover()
    assert made.outcomes(job) == ["released", "succeeded"]
    assert made.counted(job) == 0


def test_a_worker_killed_while_it_drains_burns_no_failure(trial, places) -> None:
    made = trial("SIGTERM then SIGKILL", places, bound_s=LEASE_BOUND_S)
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        worker = made.start(job)
        os.killpg(worker.pid, signal.SIGTERM)
        os.killpg(worker.pid, signal.SIGKILL)
        made.inject()
        worker.wait()
    made.worker()
    made.recover()
    assert made.outcomes(job)[-1] == "succeeded"
    assert made.counted(job) == 0


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_work_that_hangs_is_ended_counted_and_tried_again(trial, places) -> None:
    made = trial("a hang", places, bound_s=HANG_S + LEASE_BOUND_S, hang_s=HANG_S)
    job = made.generate(20, params=ONE_BY_ONE)
    hold = made.settings.home / HOLD
    hold.touch()
    worker = made.worker(failpoint=f"step:{HOLD}:3")  # which waits for the file alone
    made.wait("the hang", lambda: "step" in made.struck())
    made.inject()
    made.wait("the failure", lambda: made.outcomes(job) == ["failed"])
    hold.unlink()
    made.recover()
    assert made.outcomes(job) == ["failed", "succeeded"]
    assert worker.poll() is None


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_frozen_child_is_replaced(trial, places) -> None:
    made = trial(
        "the child alone frozen", places, bound_s=HANG_S + 5 + LEASE_BOUND_S, hang_s=HANG_S
    )
    job = made.generate(50, params=ONE_BY_ONE)
    with made.held():
        worker = made.start(job)
        (child,) = children(worker.pid)
        os.kill(child, signal.SIGSTOP)
        made.inject()
        made.wait("the lease's end", lambda: "lost" in made.outcomes(job))
    made.recover()
    assert worker.poll() is None


@pytest.mark.parametrize("action", ["memory", "oserror:ENOMEM", "oserror:EMFILE"])
def test_a_machine_that_is_short_now_is_not_the_fault_of_the_job(trial, places, action) -> None:
    made = trial("short of memory or of files", places, bound_s=LEASE_BOUND_S + 60)
    job = made.generate(20, params=ONE_BY_ONE)
    made.worker(failpoint=f"step:{action}:2")
    made.wait("the shortage", lambda: "step" in made.struck())
    made.inject()
    made.recover()
    assert made.outcomes(job)[-1] == "succeeded"
    assert made.counted(job) == 0


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_device_without_memory_halves_the_micro_batch(trial, places) -> None:
    made = trial("device out of memory: samples", places, bound_s=START_S)
    job = made.generate(24, params={"micro_batch": 4})
    made.worker(failpoint="step:device:2")
    made.wait("the shortage", lambda: "step" in made.struck())
    made.inject()
    made.recover()
    assert made.outcomes(job) == ["succeeded"]
    assert "out of memory: continuing with micro-batches of 2" in told(made, job)


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_device_without_memory_gives_a_training_back(trial, places) -> None:
    made = trial("device out of memory: training", places, bound_s=LEASE_BOUND_S).digits()
    job = made.train(max_steps=6)
    made.worker(failpoint="step:device:2")
    made.wait("the shortage", lambda: "step" in made.struck())
    made.inject()
    made.recover()
    assert made.outcomes(job) == ["declined", "succeeded"]
    assert made.counted(job) == 0


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_panic_of_native_code_ends_the_process_with_its_reason_on_record(trial, places) -> None:
    made = trial("a panic in native code", places, bound_s=LEASE_BOUND_S)
    job = made.generate(20, params=ONE_BY_ONE)
    worker = made.worker(failpoint="step:panic:2")  # each of its children panics
    made.wait("the panic", lambda: "step" in made.struck())
    made.inject()
    made.wait("its end on record", lambda: made.outcomes(job)[:1] not in ([], [None]))
    with made.services.database.read() as session:
        [shard] = jobs.shards_of(session, job.id)
        noted = [shard.last_error, *(line.message for line in jobs.log_lines(session, job.id))]
    os.killpg(worker.pid, signal.SIGKILL)
    made.worker()
    made.recover()
    assert any("panic" in each.lower() for each in noted if each)


def test_a_process_that_crashes_before_its_claim_holds_up_nobody(trial, places) -> None:
    made = trial("a crash before the claim, again and again", places, bound_s=RING_BOUND_S)
    made.worker()
    for seed in range(4):
        made.generate(4, seed=seed)
        crashing = made.worker(failpoint="received")
        made.wait(
            "a crash, or the end of all",
            lambda crashing=crashing: crashing.poll() is not None or _all_final(made),
        )
        if crashing.poll() is not None:
            made.inject()
    made.recover()


@pytest.mark.parametrize("places", [FOLDER], indirect=True)
def test_a_job_that_always_kills_its_worker_is_poison_and_others_go_on(trial, places) -> None:
    made = trial("a job that always crashes", places, bound_s=LEASE_BOUND_S, max_claims=2)
    bad = made.generate(4)
    for _ in range(2):
        worker = made.worker(failpoint="claimed")
        made.wait("its end", lambda worker=worker: worker.poll() is not None)
        made.inject()
    made.wait("the verdict", lambda: made.job(bad.id).status == "failed")
    made.row.recovered()
    assert "poison" in made.job(bad.id).error
    good = made.generate(4, seed=1)
    made.worker()
    made.recover(ends=FINAL)
    assert made.job(good.id).status == "succeeded"


@pytest.mark.parametrize("point", NAMED["generating"].points)
def test_a_job_cancelled_at_a_failpoint_ends_once(trial, places, point) -> None:
    made = trial("cancel at a failpoint", places, bound_s=LEASE_BOUND_S, failpoint="")
    made.generate(12, shard_size=6, params={"micro_batch": 2})
    [job] = made.everything()
    hold = made.settings.home / HOLD
    hold.touch()
    process = start(NAMED["generating"].part, made.settings, f"{point}:{HOLD}:1", os.environ)
    made.until("the failpoint", lambda: point in made.struck())
    cancelled = made.services.database.transact(lambda session: jobs.cancel(session, job.id))
    made.inject()
    hold.unlink()
    process.join(PATIENCE_S)
    made.recover(ends=FINAL)
    assert made.job(job.id).status == ("cancelled" if cancelled else "succeeded")


def told(made: Trial, job) -> str:
    """The job's log."""
    with made.services.database.read() as session:
        return "\n".join(line.message for line in jobs.log_lines(session, job.id))


def _all_final(made: Trial) -> bool:
    return all(job.status in FINAL for job in made.everything())
