"""A batch's id where a job's is asked for, and batches of many jobs told in few lines."""

import json
from pathlib import Path

import pytest

from db import artifacts, jobs
from scheduler.cli.watching import MANY


@pytest.fixture
def submit(genmill, digits):
    """Submit a batch of so many jobs; return its id."""

    def call(count: int) -> str:
        line = json.dumps({"kind": "generate", "model": digits, "count": 2})
        Path("jobs.jsonl").write_text(f"{line}\n" * count)
        return genmill("enqueue", "batch", "jobs.jsonl").out.strip()

    return call


def job_ids(services, batch: str) -> list[str]:
    with services.database.read() as session:
        return [job.id for job in jobs.listing(session, batch=batch)]


@pytest.mark.parametrize(
    "words",
    [
        "job show",
        "job logs",
        "job retry",
        "artifact list",
        "artifact reproduce",
        "job list --before",
    ],
)
def test_a_command_for_one_job_says_that_the_id_is_a_batch_s(genmill, submit, words):
    batch = submit(2)
    index = ["0"] if "reproduce" in words else []
    for reference in (batch, batch[:-1]):
        wrong = genmill(*words.split(), reference, *index)
        assert (wrong.code, wrong.out) == (4, "")
        assert f"'{reference}' is a batch of 2 jobs, and one job is needed" in wrong.err
        assert f"list them with `genmill job list --batch {reference}`" in wrong.err


def test_a_batch_is_cancelled_in_one_line(genmill, services, submit):
    batch = submit(3)
    first = job_ids(services, batch)[0]
    assert genmill("job", "cancel", first).out == f"{first}\n"
    cancelled = genmill("job", "cancel", batch)
    assert (cancelled.code, cancelled.out) == (0, f"{batch}\n")
    assert cancelled.err == f"1 of 3 jobs of {batch} have already ended\n"
    again = genmill("job", "cancel", batch, first)
    assert (again.code, again.out) == (0, "")
    assert again.err.splitlines()[-1] == f"{first} has already ended"
    documents = genmill("job", "cancel", batch, "--json").json
    assert [each["cancelled"] for each in documents] == [False] * 3


def test_many_jobs_are_watched_in_few_lines(genmill, submit):
    batch = submit(MANY + 1)
    genmill("job", "cancel", batch)
    seen = genmill("job", "watch", batch)
    total = f"{MANY + 1}/{MANY + 1}"
    assert (seen.code, seen.out) == (1, f"{total} jobs ended, {MANY + 1} cancelled\n")


def test_the_reasons_of_many_jobs_are_cut_short(genmill, submit):
    batch = submit(25)
    genmill("job", "cancel", batch)
    seen = genmill("job", "wait", batch)
    assert len(seen.err.splitlines()) == 21
    assert seen.err.endswith("and 5 more\n")


def test_problems_of_a_batch_name_their_job(genmill, services, submit, commit):
    batch = submit(2)
    for job_id in job_ids(services, batch):
        commit(job_id)
    damaged = job_ids(services, batch)[0]
    with services.database.read() as session:
        (artifact,) = artifacts.of_job(session, damaged)
    services.store.delete(artifact.key)
    wrong = genmill("artifact", "verify", batch)
    assert wrong.code == 1
    assert f"job {damaged}: {artifact.name}: no object" in wrong.err
