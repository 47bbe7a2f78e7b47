"""Removal of rows: all of a job's, on each database, and nothing that something else names."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import func, select, text

from db import (
    artifacts,
    chains,
    jobs,
    lineage,
    models,
    promotions,
    retention,
    schedules,
    shards,
    tombstones,
    version_removal,
)
from db.columns import new_id
from db.errors import Gone, NotFound
from db.job_removal import remove_jobs
from db.new_jobs import NewJob, insert_job
from db.session import clock
from db.tables import (
    Artifact,
    Attempt,
    Checkpoint,
    Job,
    LogLine,
    Point,
    Shard,
    Tombstone,
    Transition,
)
from tests.unit.db.conftest import DIGEST
from tests.unit.db.test_retention import finish, make_older, prune

TABLES = (Artifact, Attempt, Checkpoint, Job, LogLine, Point, Shard, Transition)


def remove(record, *ids, kept=False):
    return record.run(remove_jobs, ids, leaving=set(ids), who="ann@host", kept=kept)


def rows(record) -> dict[str, int]:
    return record.run(
        lambda session: {
            table.__tablename__: session.scalar(select(func.count()).select_from(table))
            for table in TABLES
        }
    )


def test_every_row_of_a_job_goes_and_one_tombstone_is_left(each_record):
    job_id = finish(each_record)
    [first, *_] = each_record.run(artifacts.of_job, job_id)
    done = remove(each_record, job_id)
    assert done.held == {}
    assert set(rows(each_record).values()) == {0}
    assert sum(each_record.run(jobs.counts).values()) == 0
    for ask, thing in ((jobs.get, job_id[:20]), (artifacts.get, first.id)):
        with pytest.raises(Gone, match=r"was removed on 20\d\d.* by ann@host"):
            each_record.run(ask, thing)
    [told] = each_record.run(lambda session: list(session.scalars(tombstones.select_newest())))
    assert (told.kind, told.id, told.about["kind"]) == ("job", job_id, "generate")
    assert told.size_bytes > 0
    assert told.sweep_at is not None
    if each_record.database.dialect == "sqlite":
        assert each_record.run(lambda s: s.execute(text("PRAGMA foreign_key_check")).all()) == []


def test_a_seed_of_any_size_is_kept(each_record):
    seed = 2**63 - 1
    job_id, _ = each_record.add(spec={"model": "digits:1", "seed": seed})
    [found] = each_record.run(lineage.generated_with, "digits:1", seed=seed)
    assert found.job_id == job_id
    each_record.cancel(job_id)
    remove(each_record, job_id)
    [told] = each_record.run(tombstones.of_generation, "digits:1", seed)
    assert told.id == job_id


def test_a_retry_holds_what_it_retries_unless_both_go(each_record):
    first, shard_id = each_record.add()
    each_record.fail(each_record.claim(shard_id), final=True)
    second, *_ = each_record.add(retry_of=first)
    held = remove(each_record, first).held
    assert held == {first: [f"job {second} is a retry of it"]}
    each_record.cancel(second)
    assert remove(each_record, first, second).held == {}
    third, *_ = each_record.add()
    assert remove(each_record, third).held == {third: ["it is queued: cancel it first"]}


@pytest.mark.parametrize("kept", [False, True])
def test_a_removed_job_is_not_retried(each_record, kept):
    job_id, shard_id = each_record.add()
    each_record.fail(each_record.claim(shard_id), final=True)
    old = each_record.job(job_id)
    remove(each_record, job_id, kept=kept)
    again = NewJob("generate", "{}", DIGEST, "digits", [(0, 4)], retry_of=job_id)
    with pytest.raises(Gone, match=f"job {job_id} was removed"):
        each_record.run(chains.insert_retry, old, again)
    with pytest.raises(Gone, match=f"job {job_id} was removed"):
        each_record.run(insert_job, again)
    assert each_record.run(jobs.listing) == []


def test_a_job_without_a_trace_is_not_retried(each_record):
    again = NewJob("generate", "{}", DIGEST, "digits", [(0, 4)], retry_of=new_id())
    with pytest.raises(NotFound, match="not on record any more"):
        each_record.run(insert_job, again)


@pytest.mark.parametrize("how", ["retry", "enqueue"])
def test_a_removal_waits_for_a_retry_that_is_under_way(each_record, how):
    first, shard_id = each_record.add()
    each_record.fail(each_record.claim(shard_id), final=True)
    old = each_record.job(first)
    again = NewJob("generate", "{}", DIGEST, "digits", [(0, 4)], retry_of=first)
    with ThreadPoolExecutor(1) as thread:
        with each_record.database.write() as session:
            insert = partial(chains.insert_retry, session, old)
            second = (insert if how == "retry" else partial(insert_job, session))(again).id
            removing = thread.submit(remove, each_record, first)
            with pytest.raises(TimeoutError):
                removing.result(timeout=0.2)
        assert removing.result().held == {first: [f"job {second} is a retry of it"]}


def test_retries_and_removals_at_once_leave_both_or_refuse_one(each_record):
    for _ in range(5):
        job_id, shard_id = each_record.add()
        each_record.fail(each_record.claim(shard_id), final=True)
        again = NewJob("generate", "{}", DIGEST, "digits", [(0, 4)], retry_of=job_id)
        retry = (each_record.run, chains.insert_retry, each_record.job(job_id), again)
        retried, removed = each_record.together(retry, (remove, each_record, job_id))
        if isinstance(retried, Gone):
            assert removed.held == {}
        else:
            assert removed.held == {job_id: [f"job {retried.id} is a retry of it"]}


def test_a_follower_that_was_removed_is_not_enqueued_again(each_record):
    first, shard_id = each_record.add()
    second = each_record.run(add_after, first)
    each_record.fail(each_record.claim(shard_id), final=True)
    each_record.cancel(second)
    old = each_record.job(first)
    remove(each_record, second)
    again = NewJob("generate", "{}", DIGEST, "digits", [(0, 4)], retry_of=first)
    third = each_record.run(chains.insert_retry, old, again)
    assert {each.id for each in each_record.run(jobs.listing)} == {first, third.id}


def add_after(session, job_id: str) -> str:
    spec = {"spec": {}, "spec_hash": DIGEST, "kind": "generate", "model": "digits"}
    return jobs.add(session, ranges=[], after_id=job_id, **spec).id


def test_a_job_whose_model_has_a_long_reference_can_be_removed(each_record):
    job_id, _ = each_record.add(spec={"model": f"{'m' * 100}@{'a' * 40}", "seed": 1})
    each_record.cancel(job_id)
    assert remove(each_record, job_id).held == {}
    [told] = each_record.run(lambda session: list(session.scalars(tombstones.select_newest())))
    assert (told.id, told.name) == (job_id, None)


def test_files_of_very_many_versions_are_told_from_shared_ones(each_record):
    blob = {"sha256": DIGEST, "size": 1}

    def add(session, name: str, keys) -> None:
        files = {str(key): {"key": f"models/blobs/{key:064x}", **blob} for key in keys}
        rest = {"params": {}, "weights_sha256": DIGEST, "metrics": {}}
        models.add_version(session, name=name, family="gan", files=files, **rest)

    for first in range(0, 1100, 110):
        each_record.run(add, "many", range(first, first + 110))
    each_record.run(add, "other", [0, 1099])
    _, versions = each_record.run(version_removal.removable_versions, "many")
    sizes = each_record.run(version_removal.version_sizes, versions)
    assert len(sizes) == 10
    assert sum(map(len, sizes.values())) == 1098


def test_histories_hold_the_jobs_that_they_name(record):
    decided, _ = record.add(kind="promote")
    fired, _ = record.add()
    record.run(name_in_histories, decided, fired)
    for job_id in (decided, fired):
        record.cancel(job_id)
    held = remove(record, decided, fired).held
    assert held == {
        decided: ["it decided about the alias digits@champion, whose history names it"],
        fired: ["the schedule nightly compares new data with those of this run"],
    }
    record.run(schedules.remove, "nightly")
    assert remove(record, fired).held == {}


def name_in_histories(session, decided, fired):
    rest = {"params": {}, "files": {}, "weights_sha256": DIGEST, "metrics": {}}
    version = models.add_version(session, name="digits", family="gan", **rest)
    model, reason = models.get(session, "digits"), promotions.Reason("ann", job_id=decided)
    promotions.move(
        session, model, "champion", version, expected=None, outcome="promoted", reason=reason
    )
    schedule = schedules.add(
        session,
        name="nightly",
        cron="0 3 * * *",
        timezone="UTC",
        command=[],
        next_due=clock(session),
        missed="skip",
        overlap="skip",
        only_if_new_data=True,
    )
    schedules.record_run(session, schedule.id, clock(session), outcome="fired", job_id=fired)


def test_kept_artifacts_stay_and_the_job_is_neither_listed_nor_counted(each_record):
    job_id = finish(each_record)
    before = rows(each_record)
    assert remove(each_record, job_id, kept=True).held == {}
    after = rows(each_record)
    assert (after["log_lines"], after["points"]) == (0, 0)
    assert after["shards"] == before["shards"]
    assert {each.kind for each in each_record.run(artifacts.of_job, job_id)} == {"samples"}
    assert each_record.run(jobs.listing) == []
    assert sum(each_record.run(jobs.counts).values()) == 0
    assert each_record.run(jobs.get, job_id, kept=True).id == job_id
    assert remove(each_record, job_id).held == {}
    assert each_record.run(lambda s: s.get(Tombstone, job_id).kept) is False


def test_checkpoints_can_be_pruned_alone(each_record):
    job_id, shard_id = each_record.add((0, 1), kind="train")
    claim = each_record.claim(shard_id)
    each_record.run(shards.add_checkpoint, claim, step=1, key="k", sha256="ab" * 32, size=1)
    each_record.fail(claim, final=True)
    make_older(each_record, job_id, timedelta(days=9))
    assert each_record.run(retention.count, "checkpoints", keep=timedelta(days=1)) == {
        "checkpoints": 1
    }
    assert prune(each_record, "checkpoints") == {"checkpoints": 1}
