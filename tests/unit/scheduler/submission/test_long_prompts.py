"""Prompts that are too long for a job's row: one object in the store, which the row names."""

import hashlib
import json

import pytest

from db import batches, jobs
from db.errors import DigestMismatch, NotFound, Refused
from db.tables import Schedule
from scheduler.dispatch.garbage import collect_prompts
from scheduler.schedules.command import prepared_jobs
from scheduler.submission.batches import enqueue_batch
from scheduler.submission.enqueue import enqueue, retry
from worker.files import canonical_json
from worker.services.prompts import COUNT, MAX_BYTES_IN_ROW, PREFIX, SHA256, load_data, load_spec
from worker.specs import parse_spec

MANY = [{"prompt": f"prompt number {n}", "custom_id": str(n)} for n in range(2000)]


def generate(prompts, **words):
    return {"kind": "generate", "model": "imported", "count": 10, "prompts": prompts, **words}


def add(services, prompts, **how):
    return enqueue(services, parse_spec(generate(prompts)), **how)


def stored(services):
    return list(services.store.keys(PREFIX))


def reread(services, job):
    with services.database.read() as session:
        return jobs.get(session, job.id)


def test_a_row_stays_small_however_many_prompts_there_are(services) -> None:
    spec = reread(services, add(services, MANY)).spec
    assert len(json.dumps(spec)) < 1000
    assert (spec[COUNT], stored(services)) == (2000, [f"{PREFIX}/{spec[SHA256]}"])
    assert load_data(services.store, spec)["prompts"] == MANY


def test_a_few_prompts_stay_in_the_row(services) -> None:
    job = add(services, MANY[:3])
    assert job.spec["prompts"] == MANY[:3]
    assert (job.prompts_sha256, stored(services)) == (None, [])


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_is_in_bytes_of_json(services, extra) -> None:
    around = len(canonical_json([{"custom_id": None, "prompt": ""}]))
    job = add(services, [{"prompt": "x" * (MAX_BYTES_IN_ROW - around + extra)}])
    assert (job.prompts_sha256 is None) == (extra == 0)


def test_the_spec_hash_is_that_of_the_whole_spec(services) -> None:
    job = add(services, MANY)
    whole = load_data(services.store, job.spec)
    assert job.spec_hash == hashlib.sha256(canonical_json(whole)).hexdigest()


def test_equal_prompts_are_stored_once(services) -> None:
    assert add(services, MANY).prompts_sha256 == add(services, MANY).prompts_sha256
    assert len(stored(services)) == 1


def test_a_retry_has_the_prompts_of_its_job(services) -> None:
    job = add(services, MANY)
    services.database.transact(lambda session: jobs.cancel(session, job.id))
    again = retry(services, reread(services, job))
    assert (again.spec, again.spec_hash) == (job.spec, job.spec_hash)
    assert load_spec(services.store, again.spec) == load_spec(services.store, job.spec)


def test_a_key_is_for_its_own_prompts(services) -> None:
    job = add(services, MANY, idempotency_key="k")
    assert add(services, MANY, idempotency_key="k").id == job.id
    for other in (MANY[::-1], MANY[:3], []):
        with pytest.raises(Refused, match="differs in prompts"):
            add(services, other, idempotency_key="k")


def test_prompts_of_batches_and_schedules_are_stored_before_their_jobs(services, tmp_path) -> None:
    batch = enqueue_batch(services, [json.dumps(generate(MANY)), json.dumps(generate(MANY[1:]))])
    with services.database.read() as session:
        made = batches.jobs_of(session, batch.id, with_spec=True)
        assert [load_spec(services.store, job.spec).prompts[0].custom_id for job in made] == [
            "0",
            "1",
        ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in MANY[2:]))
    words = ["enqueue", "generate", "imported", "--prompts", str(file)]
    with prepared_jobs(services, Schedule(id="s", command=words)):
        assert len(stored(services)) == 3


def test_prompts_that_no_job_names_are_collected_once_they_are_old(services) -> None:
    job = add(services, MANY)
    stray = services.store.put_bytes(PREFIX, b"of a request that was refused").key
    assert collect_prompts(services) == 0
    assert collect_prompts(services, older_than_s=-1) == 1
    assert stored(services) == [f"{PREFIX}/{job.prompts_sha256}"] != [stray]


def test_prompts_that_were_lost_or_damaged_are_named(services) -> None:
    job = add(services, MANY)
    (services.store.root / PREFIX / job.prompts_sha256).write_bytes(b"[]")
    with pytest.raises(DigestMismatch, match=job.prompts_sha256):
        load_spec(services.store, job.spec)
    services.store.delete(f"{PREFIX}/{job.prompts_sha256}")
    with pytest.raises(NotFound, match=job.prompts_sha256):
        load_spec(services.store, job.spec)
