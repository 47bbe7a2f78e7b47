"""Retention: what a finished job leaves behind goes by age; what anything else needs stays."""

import json
import time
from datetime import timedelta
from threading import Event

import pytest
from sqlalchemy import func, select, text

from db import artifacts, ended_jobs, jobs, models, publications, retention, shards
from db.commits import NewArtifact
from db.errors import Removed
from db.new_jobs import NewJob, insert_job
from db.session import clock
from db.tables import Artifact, Attempt, Checkpoint, Job, LogLine, Point, Shard, Transition
from tests.publications import add_target, publish, take_all_down
from tests.shards import succeed
from tests.unit.db.conftest import DIGEST, Record

OLD, DAY = timedelta(days=100), timedelta(days=1)
KEPT = {"jobs", "shards"}


@pytest.fixture
def finished(each_record: Record) -> str:
    """A generate job of two shards that ended a hundred days ago, with everything it can leave."""
    return finish(each_record)


def finish(record: Record, *, age: timedelta = OLD, kind: str = "generate", **options) -> str:
    job_id, *shard_ids = record.add((0, 2), (2, 4), kind=kind, **options)
    for shard_id in shard_ids:
        record.release(record.claim(shard_id))
        claim = record.claim(shard_id)
        record.run(jobs.log, job_id, "a line")
        record.run(jobs.add_points, job_id, 1, {"loss": 0.5, "accuracy": 0.25})
        record.run(shards.put_artifact, claim, of_kind("preview"))
        record.commit(claim)
    record.run(succeed, job_id, "key", DIGEST)
    make_older(record, job_id, age)
    return job_id


def of_kind(kind: str) -> NewArtifact:
    return NewArtifact(kind, f"{kind}.bin", f"jobs/x/{kind}", "cd" * 32, 10, "image/png")


def make_older(record: Record, job_id: str, age: timedelta) -> None:
    def change(session):
        job = session.get(Job, job_id)
        job.finished_at = clock(session) - age
        job.collected_at = clock(session)

    record.run(change)


def left(record: Record, job_id: str) -> dict[str, int]:
    """How many rows of each table a job has; of artifacts, those that are not removed."""
    of_shards = select(Shard.id).where(Shard.job_id == job_id)
    where = {
        Transition: Transition.job_id == job_id,
        LogLine: LogLine.job_id == job_id,
        Point: Point.job_id == job_id,
        Attempt: Attempt.shard_id.in_(of_shards),
        Checkpoint: Checkpoint.shard_id.in_(of_shards),
        Artifact: Artifact.shard_id.in_(of_shards) & Artifact.removed_at.is_(None),
        Shard: Shard.job_id == job_id,
    }
    return record.run(
        lambda session: {
            table.__tablename__: session.scalar(select(func.count()).where(condition))
            for table, condition in where.items()
        }
    )


def prune(record: Record, what: str, keep: timedelta = DAY, **options) -> dict[str, int]:
    total: dict[str, int] = {}
    while True:
        step = record.run(retention.take_step, what, keep=keep, **options)
        for table, rows in step.rows.items():
            total[table] = total.get(table, 0) + rows
        if not step.more:
            return total


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ("history", {"transitions", "attempts"}),
        ("logs", {"log_lines"}),
        ("curves", {"points"}),
    ],
)
def test_each_kind_of_data_goes_alone(each_record, finished, what, gone):
    before = left(each_record, finished)
    deleted = prune(each_record, what)
    assert deleted == {table: before[table] for table in gone}
    assert left(each_record, finished) == before | dict.fromkeys(gone, 0)


def test_a_dry_run_counts_what_would_go(each_record, finished):
    for what in retention.WHAT:
        counted = each_record.run(retention.count, what, keep=DAY)
        assert counted == prune(each_record, what)
        assert set(each_record.run(retention.count, what, keep=DAY).values()) == {0}


def test_young_and_unfinished_jobs_keep_everything(each_record):
    young = finish(each_record, age=timedelta(hours=1))
    running, shard_id = each_record.add()
    each_record.claim(shard_id)
    before = [left(each_record, job_id) for job_id in (young, running)]
    for what in retention.WHAT:
        assert prune(each_record, what) == {}
        assert not each_record.run(retention.is_due, what, keep=DAY)
    assert [left(each_record, job_id) for job_id in (young, running)] == before


def test_a_step_is_bounded_and_the_next_one_goes_on(each_record, finished):
    others = [finish(each_record) for _ in range(3)]
    before = sum(left(each_record, job_id)["points"] for job_id in (finished, *others))
    step = each_record.run(retention.take_step, "curves", keep=DAY, limit=3)
    assert step == retention.Step({"points": 3}, more=True)
    assert prune(each_record, "curves", limit=3) == {"points": before - 3}


def test_jobs_that_were_visited_are_not_looked_at_again(each_record, finished):
    prune(each_record, "logs")
    assert not each_record.run(retention.is_due, "logs", keep=DAY)
    each_record.run(jobs.log, finished, "too late")
    assert prune(each_record, "logs") == {}
    later = finish(each_record, age=timedelta(days=50))
    assert each_record.run(retention.is_due, "logs", keep=DAY)
    assert prune(each_record, "logs")["log_lines"] == 2
    assert left(each_record, later)["log_lines"] == 0


def test_removed_artifacts_are_named_as_such_and_their_objects_become_garbage(
    each_record, finished
):
    first, *_ = each_record.run(artifacts.of_job, finished)
    assert prune(each_record, "artifacts") == {"artifacts": 2, "checkpoints": 0}
    assert left(each_record, finished)["artifacts"] == 2  # the previews have a time of their own
    removed = next(a for a in [first, *each_record.run(all_of, finished)] if a.kind == "samples")
    assert each_record.run(artifacts.removed_at, finished) is not None
    for ask, of in (
        (artifacts.refuse_removed, finished),
        (artifacts.get, removed.id),
    ):
        with pytest.raises(Removed, match=r"removed on 20\d\d-.*GENMILL_KEEP_ARTIFACTS_DAYS"):
            each_record.run(ask, of)
    with pytest.raises(Removed):
        each_record.run(artifacts.holding, finished, 3)
    assert removed.key not in each_record.run(artifacts.referenced_keys, finished)
    assert each_record.run(jobs.collectable, 3600, 9) == [finished]


def all_of(session, job_id):
    return list(session.scalars(select(Artifact).where(Artifact.job_id == job_id)))


def test_the_manifest_can_still_be_derived_without_the_previews(each_record, finished):
    before = each_record.run(jobs.manifest, finished)
    assert prune(each_record, "previews") == {"artifacts": 2}
    assert each_record.run(jobs.manifest, finished) == before
    each_record.run(artifacts.refuse_removed, finished)


def test_the_weights_of_a_model_version_stay(each_record):
    job_id, shard_id = each_record.add((0, 1), kind="train")
    claim = each_record.claim(shard_id)
    each_record.run(shards.commit, claim, [of_kind("weights"), of_kind("report")])
    each_record.run(succeed, job_id, "key", DIGEST)
    make_older(each_record, job_id, OLD)
    each_record.run(
        models.add_version,
        name="digits",
        family="gan",
        params={},
        files={},
        weights_sha256=DIGEST,
        metrics={},
        job_id=job_id,
    )
    assert prune(each_record, "artifacts") == {"artifacts": 1, "checkpoints": 0}
    kept = each_record.run(artifacts.of_job, job_id)
    assert [artifact.kind for artifact in kept] == ["weights"]


def test_a_checkpoint_stays_while_a_retry_may_resume_from_it(each_record):
    job_id, shard_id = each_record.add((0, 1), kind="train")
    claim = each_record.claim(shard_id)
    each_record.run(shards.add_checkpoint, claim, step=1, key="k", sha256=DIGEST, size=1)
    each_record.fail(claim, final=True)
    make_older(each_record, job_id, OLD)
    retry, *_ = each_record.add((0, 1), kind="train", retry_of=job_id)
    assert each_record.run(retention.count, "artifacts", keep=DAY)["checkpoints"] == 0
    each_record.cancel(retry)
    assert prune(each_record, "artifacts")["checkpoints"] == 1
    assert left(each_record, job_id)["checkpoints"] == 0


def test_a_checkpoint_stays_while_a_retry_of_a_retry_may_resume_from_it(each_record):
    job_id, shard_id = each_record.add((0, 1), kind="train")
    claim = each_record.claim(shard_id)
    each_record.run(shards.add_checkpoint, claim, step=1, key="k", sha256=DIGEST, size=1)
    each_record.fail(claim, final=True)
    second, *_ = each_record.add((0, 1), kind="train", retry_of=job_id)
    each_record.cancel(second)
    third, *_ = each_record.add((0, 1), kind="train", retry_of=second)
    for each in (job_id, second):
        make_older(each_record, each, OLD)
    assert each_record.run(retention.count, "artifacts", keep=DAY)["checkpoints"] == 0
    each_record.cancel(third)
    assert prune(each_record, "artifacts")["checkpoints"] == 1


def test_schedulers_that_prune_at_once_take_turns(each_record):
    ids = [finish(each_record) for _ in range(4)]
    steps = [(prune, each_record, "history")] * 4
    for outcome in each_record.together(*steps):
        assert isinstance(outcome, dict), outcome
    for job_id in ids:
        assert left(each_record, job_id)["transitions"] == 0


def test_the_search_for_old_jobs_is_by_index(each_record, finished):
    from tests.unit.db.test_job_lists import assert_by_index, plans_of

    prune(each_record, "logs")
    plans = plans_of(each_record.database, lambda s: retention.is_due(s, "logs", keep=DAY))
    assert plans
    for plan in plans:
        assert_by_index(plan)


def test_no_row_is_deleted_that_another_refers_to(each_record, finished):
    for what in retention.WHAT:
        prune(each_record, what)
    if each_record.database.dialect == "sqlite":
        assert each_record.run(lambda s: s.execute(text("PRAGMA foreign_key_check")).all()) == []
    assert each_record.job(finished).status == "succeeded"


def test_what_is_published_stays_until_it_has_been_taken_down(each_record, finished):
    def show(session):
        publish(session, add_target(session), job_id=finished)

    each_record.run(show)
    assert prune(each_record, "artifacts")["artifacts"] == 0
    assert left(each_record, finished)["artifacts"] == 4
    each_record.run(take_all_down)
    assert prune(each_record, "artifacts") == {}  # it was visited
    each_record.run(ended_jobs.look_again, [finished])
    assert prune(each_record, "artifacts")["artifacts"] == 2


def test_a_job_that_is_looked_at_again_has_no_other_looked_at(each_record, finished):
    """Else each end of a publish job would have all later jobs looked at."""
    ids = [finished, *(finish(each_record) for _ in range(2))]
    prune(each_record, "artifacts")
    each_record.run(ended_jobs.look_again, ids[:2])
    assert each_record.run(retention.is_due, "artifacts", keep=DAY)
    assert not each_record.run(retention.is_due, "artifacts", keep=2 * OLD)
    steps = 0
    while each_record.run(retention.take_step, "artifacts", keep=DAY, jobs_at_once=1).more:
        steps += 1
    assert steps == 2
    each_record.run(ended_jobs.look_again, ids)
    each_record.run(retention.pass_over, "artifacts", keep=DAY, reason="it cannot")
    assert [left(each_record, each)["log_lines"] for each in ids] == [3, 2, 2]
    finish(each_record)  # one more, after what was passed by then
    assert each_record.run(retention.count, "artifacts", keep=DAY)["artifacts"] == 2
    assert prune(each_record, "artifacts")["artifacts"] == 2


def test_what_was_published_at_a_target_that_is_abandoned_goes(each_record, finished):
    def add(session):
        target = add_target(session)
        publish(session, target, job_id=finished)
        return target.id

    target_id = each_record.run(add)
    assert prune(each_record, "artifacts")["artifacts"] == 0
    each_record.run(publications.abandon, target_id)
    assert prune(each_record, "artifacts")["artifacts"] == 2


def test_what_is_to_be_published_stays_until_that_has_ended(each_record, finished):
    spec = {"job": finished, "target": "there"}
    about = {"job": None, "model": "digits:1", "target": "there"}
    other = each_record.add((0, 1), kind="publish", spec=about)[0]
    publishing = each_record.add((0, 1), kind="publish", spec=spec)[0]
    counted = each_record.run(retention.count, "artifacts", keep=DAY)
    assert counted["artifacts"] == prune(each_record, "artifacts")["artifacts"] == 0
    assert left(each_record, finished)["artifacts"] == 4
    each_record.run(jobs.cancel, other)
    assert prune(each_record, "artifacts") in ({}, {"artifacts": 0, "checkpoints": 0})
    each_record.run(jobs.cancel, publishing)
    assert prune(each_record, "artifacts")["artifacts"] == 2


def test_what_a_job_was_to_publish_and_did_not_goes_once_that_has_ended_well(each_record, finished):
    def add():
        spec = {"job": finished, "target": "there"}
        return each_record.add((0, 1), kind="publish", spec=spec)

    job_id, shard_id = add()
    claim = each_record.claim(shard_id)
    assert prune(each_record, "artifacts")["artifacts"] == 0
    each_record.run(shards.commit, claim, [])  # it refused all items
    each_record.settle(job_id)
    each_record.run(succeed, job_id, "key", DIGEST)
    assert each_record.job(job_id).status == "succeeded"
    assert prune(each_record, "artifacts")["artifacts"] == 2


def test_what_a_job_that_waits_in_a_chain_was_to_publish_goes_once_it_is_cancelled(
    each_record, finished
):
    before = each_record.add((0, 1))[0]
    spec = json.dumps({"job": finished, "target": "there"})
    waiting = NewJob("publish", spec, "0" * 64, "m", (), after_id=before)
    each_record.run(insert_job, waiting)
    assert prune(each_record, "artifacts")["artifacts"] == 0
    each_record.run(jobs.cancel, before)
    assert prune(each_record, "artifacts")["artifacts"] == 2


def test_a_step_that_is_under_way_does_not_pass_by_what_is_looked_at_again(each_record, finished):
    spec = {"job": finished, "target": "there"}
    publishing = each_record.add((0, 1), kind="publish", spec=spec)[0]
    begun = Event()

    def step(session):
        begun.clear()
        retention.take_step(session, "artifacts", keep=DAY)  # the job is kept, and passed by
        begun.set()
        time.sleep(0.3)  # for the other, which waits for the commit

    def end():
        assert begun.wait(10)
        each_record.run(jobs.cancel, publishing)

    assert each_record.together((each_record.run, step), (end,)) == [None, None]
    assert prune(each_record, "artifacts")["artifacts"] == 2
