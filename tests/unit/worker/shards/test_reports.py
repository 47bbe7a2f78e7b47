"""What becomes of a shard by the error that its work met: the same for every kind of job."""

import errno

import pytest
import torch

from db import jobs, shards
from db.errors import (
    BadInput,
    Cancelled,
    Collapsed,
    DamagedSecret,
    DigestMismatch,
    Draining,
    GenmillError,
    JobFailed,
    LeaseLost,
    NonFinite,
    NotFound,
    NotPromoted,
    NotSupportedHere,
    Refused,
    Removed,
    SchemaMismatch,
    ShortOfMemory,
    TooLarge,
    Unreachable,
    WrongKey,
    contained,
)
from tests.attempts import attempts_at
from tests.panics import PanicException
from worker.families import NotInstalled
from worker.shards import reports
from worker.shards.reports import report_error
from worker.specs import KINDS
from worker.store.s3_errors import Forbidden

NO_CPU_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"


def system(name: str) -> OSError:
    return OSError(getattr(errno, name), f"said {name}", "/some/file")


RELEASED = [
    WrongKey("the keys were wrapped anew"),
    *(Unreachable("away"), Forbidden("403"), ConnectionResetError("cut"), TimeoutError("slow")),
    *map(
        system, ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE", "ENFILE", "ESTALE", "ECONNREFUSED")
    ),
]
DECLINED = [
    DamagedSecret("changed"),
    *(ShortOfMemory("short"), TooLarge("too large"), MemoryError(), NotSupportedHere("no GPU")),
    *(SchemaMismatch("newer"), NotInstalled("no family"), torch.OutOfMemoryError("CUDA")),
    *(RuntimeError(NO_CPU_MEMORY), torch.AcceleratorError("CUDA error: out of memory")),
    *(torch.AcceleratorError("CUDA error: uncorrectable ECC error"), system("ENOMEM")),
    *(RuntimeError("can't start new thread"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")),
    system("EACCES"),
]
FINAL = [
    *(Refused("no"), BadInput("bad"), NotFound("none"), Removed("old"), DigestMismatch("other")),
    *(NonFinite("NaN"), NotPromoted("worse"), Collapsed("flat"), JobFailed("other job")),
]
COUNTED = [
    *(GenmillError("odd"), KeyError("x"), ValueError("x"), RuntimeError("shape"), IndexError("x")),
    *(AssertionError(), RecursionError(), ZeroDivisionError(), OSError("no picture")),
    *(torch.AcceleratorError("CUDA error: device-side assert"), contained(PanicException("bug"))),
    *map(system, ("ENOENT", "EINVAL", "EISDIR", "EEXIST")),
]
DROPPED = [Cancelled("by the user"), LeaseLost("another's")]

TABLE = (
    (RELEASED, ("queued", 0, 1), "released"),
    (DECLINED, ("queued", 0, 1), "declined"),
    (FINAL, ("failed", 1, 0), "failed"),
    (COUNTED, ("queued", 1, 0), "failed"),
    (DROPPED, ("running", 0, 0), None),  # the record says already what became of it
)
CASES = [(error, row, outcome) for errors, row, outcome in TABLE for error in errors]


def claimed(services, kind):
    """A claim on the shard of a fresh job."""

    def work(session):
        job = jobs.add(session, spec={}, spec_hash="0" * 64, kind=kind, model="m", ranges=[(0, 1)])
        shard = jobs.shards_of(session, job.id)[0]
        return shards.claim(session, shard.id, owner="me", lease_s=60)

    return services.database.transact(work)


def ended(services, claim):
    """The shard's row, and the outcome of its attempt."""
    with services.database.read() as session:
        shard = jobs.shards_of(session, claim.job_id)[0]
        return shard, attempts_at(session, shard.id)[-1]["outcome"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_cause_of_an_error_decides_for_every_kind_of_job(services, kind) -> None:
    for error, row, outcome in CASES:
        claim = claimed(services, kind)
        assert report_error(services, claim, error)
        shard, found = ended(services, claim)
        seen = (shard.status, shard.failures, shard.releases)
        assert (seen, found) == (row, outcome), repr(error)
        with services.database.read() as session:
            job = jobs.get(session, claim.job_id)
            trace = [line for line in jobs.log_lines(session, job.id) if line.level == "error"]
        assert job.status == ("failed" if row[0] == "failed" else "running")
        assert bool(trace) == (row == ("queued", 1, 0)), "a traceback for what nobody knows"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Unreachable("the store is away"), "given back: the store is away"),
        (Refused("no"), "attempt 1 failed: no"),
        (ValueError("x"), "attempt 1 failed: ValueError: x"),
    ],
)
def test_the_log_of_a_training_tells_what_ended_an_attempt(services, error, line) -> None:
    for kind in ("train", "generate"):  # a job of many shards would have a line for each
        claim = claimed(services, kind)
        report_error(services, claim, error)
        with services.database.read() as session:
            found = [each.message for each in jobs.log_lines(session, claim.job_id)]
        assert (line in found) == (kind == "train")


def test_a_disk_that_is_full_or_fails_says_so(services) -> None:
    for name, says in (("ENOSPC", "no space left on the disk of /some/file"), ("EIO", "check the")):
        claim = claimed(services, "generate")
        report_error(services, claim, system(name))
        assert says in ended(services, claim)[0].last_error


def test_draining_is_left_to_the_caller(services) -> None:
    claim = claimed(services, "generate")
    assert report_error(services, claim, Draining())
    assert ended(services, claim)[0].status == "running"


def test_a_report_that_fails_oddly_holds_up_no_other(services, monkeypatch) -> None:
    claim = claimed(services, "train")

    def broken(*_, **__):
        raise KeyError("odd")

    monkeypatch.setattr(reports.shards, "release", broken)
    assert report_error(services, claim, Unreachable("away"))
    assert ended(services, claim)[0].status == "running", "left to the reaper"
