"""Jobs are added, found, cancelled and finished."""

from datetime import timedelta

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

from db import batches, jobs
from db.errors import NotFound, Refused
from db.session import clock
from tests.shards import succeed

DIGEST = "cd" * 32


def finish(record, *ranges, **options):
    job_id, *ids = record.add(*ranges, **options)
    for shard_id in ids:
        record.commit(record.claim(shard_id))
    assert record.run(succeed, job_id, f"jobs/{job_id}/manifest.json", DIGEST)
    return job_id


def test_a_job_is_added_queued_with_its_shards(record):
    job_id, *ids = record.add((0, 4), (4, 7))
    job = record.job(job_id)
    assert (job.status, job.kind, job.model, job.priority) == ("queued", "generate", "digits", 0)
    shards = record.run(jobs.shards_of, job_id)
    assert [(s.id, s.idx, s.start, s.stop, s.status) for s in shards] == [
        (ids[0], 0, 0, 4, "queued"),
        (ids[1], 1, 4, 7, "queued"),
    ]
    assert record.progress(job_id)["total"] == 7


def test_an_idempotency_key_finds_its_job_and_is_unique(record):
    job_id, _ = record.add(idempotency_key="nightly-7")
    assert record.run(jobs.by_idempotency_key, "nightly-7").id == job_id
    assert record.run(jobs.by_idempotency_key, "another") is None
    with pytest.raises(IntegrityError):
        record.add(idempotency_key="nightly-7")


def test_a_job_is_found_by_a_prefix_of_its_id(record):
    job_id, _ = record.add()
    assert record.job(job_id[:13].upper()).id == job_id


def test_an_ambiguous_prefix_lists_the_candidates(record):
    ids = [record.add()[0] for _ in range(7)]
    with pytest.raises(Refused, match="several job ids begin with") as refusal:
        record.job(ids[0][:4])
    assert ids[0] in str(refusal.value)
    assert "..." in str(refusal.value)


@pytest.mark.parametrize("wrong", ["ffffffff", "", "%", "no-hex", "0" * 37, "'; drop table jobs"])
def test_an_unknown_id_is_not_found(record, wrong):
    record.add()
    with pytest.raises(NotFound, match="no job"):
        record.job(wrong)


def test_jobs_are_listed_newest_first_and_page_by_page(record):
    ids = [record.add()[0] for _ in range(5)]
    first = [job.id for job in record.run(jobs.listing, limit=3)]
    rest = [job.id for job in record.run(jobs.listing, limit=3, before=first[-1])]
    assert first + rest == ids[::-1]


def test_a_list_is_narrowed_by_every_filter(record):
    batch = record.run(batches.add, 1)
    wanted, _ = record.add(model="faces", kind="train", batch_id=batch.id, schedule_id="s")
    record.run(batches.complete, batch.id)
    record.add(model="faces")
    narrowed = {"model": "faces", "kind": "train", "batch": batch.id, "schedule": "s"}
    found = record.run(jobs.listing, status="queued", **narrowed)
    assert [job.id for job in found] == [wanted]
    assert record.run(jobs.listing, status="failed") == []


def test_a_list_since_a_time_leaves_older_jobs_out(record):
    record.add()
    now = record.run(clock)
    assert len(record.run(jobs.listing, since=now - timedelta(hours=1))) == 1
    assert record.run(jobs.listing, since=now + timedelta(hours=1)) == []


def test_an_unknown_status_is_refused_with_the_known_ones(record):
    with pytest.raises(Refused, match="did you mean 'running'"):
        record.run(jobs.listing, status="runing")


def test_jobs_are_counted_by_state(record):
    record.add()
    finish(record)
    counts = record.run(jobs.counts)
    assert (counts["queued"], counts["succeeded"], counts["failed"]) == (1, 1, 0)


def test_cancelling_ends_a_job_with_all_its_shards(record):
    job_id, *ids = record.add((0, 1), (1, 2), (2, 3))
    record.commit(record.claim(ids[0]))
    record.claim(ids[1])
    assert record.cancel(job_id)
    states = [record.shard(shard_id).status for shard_id in ids]
    assert states == ["succeeded", "cancelled", "cancelled"]
    assert record.job(job_id).finished_at is not None
    assert record.job(job_id).error is None


def test_cancelling_an_ended_job_changes_nothing(record):
    job_id = finish(record)
    assert record.cancel(job_id) is False
    assert record.job(job_id).status == "succeeded"


def test_cancelling_an_unknown_job_is_not_found(record):
    with pytest.raises(NotFound):
        record.cancel("nope")


def test_jobs_whose_shards_are_done_are_next_to_finalize(record):
    job_id, shard_id = record.add()
    record.add()
    assert record.run(jobs.next_to_finalize, 10) == []
    record.commit(record.claim(shard_id))
    assert record.run(jobs.next_to_finalize, 10) == [job_id]
    assert record.run(jobs.settle, job_id) == "finalizing"


def test_a_running_job_whose_shards_are_done_is_settled_too(record):
    job_id, shard_id = record.add()
    record.commit(record.claim(shard_id))

    def as_if_left_behind(session):
        jobs.get(session, job_id).status = "running"

    record.run(as_if_left_behind)
    assert record.run(jobs.next_to_finalize, 10) == [job_id]
    assert record.run(jobs.settle, job_id) == "finalizing"


def test_settling_an_unfinished_job_changes_nothing(record):
    job_id, shard_id = record.add()
    assert record.run(jobs.settle, job_id) == "queued"
    record.claim(shard_id)
    assert record.run(jobs.settle, job_id) == "running"


def test_a_finalized_job_names_its_manifest_and_is_not_finalized_again(record):
    job_id = finish(record)
    job = record.job(job_id)
    assert (job.status, job.manifest_sha256) == ("succeeded", DIGEST)
    assert record.run(succeed, job_id, "elsewhere", "0" * 64) is False
    assert record.job(job_id).manifest_key == job.manifest_key


def test_a_cancelled_job_does_not_succeed(record):
    job_id, shard_id = record.add()
    record.commit(record.claim(shard_id))
    record.cancel(job_id)
    assert record.run(succeed, job_id, "m", DIGEST) is False
    assert record.job(job_id).status == "cancelled"


def test_the_manifest_is_the_same_each_time(record):
    job_id = finish(record, (0, 3), (3, 5))
    manifest = record.run(jobs.manifest, job_id)
    assert manifest == record.run(jobs.manifest, job_id)
    assert [entry["members"]["count"] for entry in manifest["artifacts"]] == [3, 2]
    assert [entry["shard"] for entry in manifest["artifacts"]] == [0, 1]
    assert manifest["job"] == job_id


def test_ended_jobs_are_collected_once_and_after_a_while(record):
    job_id = finish(record)
    record.add()
    assert record.run(jobs.collectable, 3600, 10) == []
    assert record.run(jobs.collectable, -1, 10) == [job_id]
    record.run(jobs.mark_collected, job_id)
    assert record.run(jobs.collectable, -1, 10) == []


def test_a_batch_keeps_its_jobs_in_order(record):
    batch = record.run(batches.add, 3)
    ids = [record.add(batch_id=batch.id, custom_id=str(i))[0] for i in range(3)]
    record.run(batches.complete, batch.id)
    found = record.run(batches.jobs_of, record.run(batches.get, batch.id).id)
    assert [job.id for job in found] == ids


def test_a_long_job_is_cancelled_in_few_statements(record):
    job_id, *ids = record.add(*((i, i + 1) for i in range(2000)))
    record.claim(ids[0])
    record.cancel(job_id)
    assert {shard.status for shard in record.run(jobs.shards_of, job_id)} == {"cancelled"}
    assert len(record.run(jobs.transitions, job_id)) == 1 + 1 + 2000 + 1


def test_a_job_without_a_shard_is_refused(record):
    with pytest.raises(Refused, match="nothing to do"):
        record.run(jobs.add, spec={}, spec_hash=DIGEST, kind="train", model=None, ranges=[])


def test_the_spec_is_loaded_only_where_it_is_asked_for(record):
    job_id, _ = record.add(spec={"kind": "generate"})
    (listed,) = record.run(jobs.listing)
    assert "spec" in inspect(listed).unloaded
    (whole,) = record.run(jobs.listing, with_spec=True)
    assert whole.spec == record.job(job_id).spec == {"kind": "generate"}
