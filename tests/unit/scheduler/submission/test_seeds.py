"""The seeds of jobs: as asked for, or each its own; on record, and kept by a retry."""

import json

import pytest

from db import batches, jobs
from db.errors import Refused
from scheduler.submission.batches import enqueue_batch
from scheduler.submission.enqueue import enqueue, prepare, retry
from scheduler.submission.estimates import estimate_each
from worker.specs import SEED_BITS, parse_spec

GENERATE = {"kind": "generate", "model": "digits", "count": 3}
TRAIN = {"kind": "train", "family": "vae", "model": "new", "dataset": "pets"}
FINETUNE = {"kind": "finetune", "model": "digits", "dataset": "pets"}
OPENAI = {"method": "POST", "url": "/v1/completions", "body": {"model": "imported", "prompt": "a"}}


def job_of(services, spec, **how):
    return enqueue(services, parse_spec(spec), **how)


def batch_of(services, *lines, **how):
    batch = enqueue_batch(services, map(json.dumps, lines), **how)
    with services.database.read() as session:
        return batches.jobs_of(session, batch.id, with_spec=True)


@pytest.mark.parametrize("spec", [GENERATE, TRAIN, FINETUNE], ids=lambda spec: spec["kind"])
def test_two_requests_without_a_seed_have_two_and_with_one_have_that(services, spec):
    seeds = [job_of(services, spec).spec["seed"] for _ in range(2)]
    assert len(set(seeds)) == 2
    assert all(0 <= seed < 2**SEED_BITS for seed in seeds)
    asked = [job_of(services, spec | {"seed": 0}) for _ in range(2)]
    assert [job.spec["seed"] for job in asked] == [0, 0]
    assert asked[0].spec_hash == asked[1].spec_hash


def test_each_line_of_a_batch_has_its_own_unless_it_names_one(services):
    lines = [GENERATE, GENERATE, GENERATE | {"seed": 4}, OPENAI, OPENAI]
    null = {**OPENAI, "body": OPENAI["body"] | {"seed": None}}
    named = {**OPENAI, "body": OPENAI["body"] | {"seed": 0}}
    seeds = [job.spec["seed"] for job in batch_of(services, *lines, null, named)]
    assert (seeds[2], seeds[6]) == (4, 0)
    assert len(set(seeds)) == 7


def test_a_repeated_key_is_the_same_request_and_keeps_the_first_seed(services):
    first = job_of(services, GENERATE, idempotency_key="k")
    again = job_of(services, GENERATE, idempotency_key="k")
    assert (again.id, again.spec["seed"]) == (first.id, first.spec["seed"])
    assert job_of(services, GENERATE | {"seed": first.spec["seed"]}, idempotency_key="k")
    with pytest.raises(Refused, match="differs in seed"):
        job_of(services, GENERATE | {"seed": first.spec["seed"] + 1}, idempotency_key="k")


def test_a_repeated_batch_is_the_same_batch(services):
    lines = [GENERATE, GENERATE | {"seed": 4}, TRAIN]
    first = batch_of(services, *lines, idempotency_key="k")
    again = batch_of(services, *lines, idempotency_key="k")
    assert [job.id for job in again] == [job.id for job in first]
    with pytest.raises(Refused, match="differs in seed"):
        batch_of(services, lines[0], GENERATE | {"seed": 5}, TRAIN, idempotency_key="k")


def test_a_retry_keeps_the_seed(services):
    job = job_of(services, GENERATE)
    services.database.transact(lambda session: jobs.cancel(session, job.id))
    with services.database.read() as session:
        cancelled = jobs.get(session, job.id)
    assert retry(services, cancelled).spec["seed"] == job.spec["seed"]


def test_a_plan_names_no_seed_that_another_will_be_drawn_for(services):
    for spec, seed in ((GENERATE, None), (TRAIN, None), (GENERATE | {"seed": 4}, 4)):
        plan = next(estimate_each(services, [prepare(services, parse_spec(spec))]))
        assert plan.spec["seed"] == seed


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "x", None])
def test_a_seed_that_cannot_be_is_refused_by_name(seed):
    with pytest.raises(Refused, match="seed"):
        parse_spec(GENERATE | {"seed": seed})
