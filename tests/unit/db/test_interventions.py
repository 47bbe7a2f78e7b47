"""What a user changes about jobs that are under way."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from db import batches, chains, interventions, jobs, shards
from db.errors import Cancelled, LeaseLost, NotFound, Refused
from db.interventions import Answer
from db.new_jobs import NewJob
from db.session import clock
from db.tables import Attempt, Checkpoint, Job, Shard


def training(record, **options):
    return record.add((0, 1), kind="train", **options)


def save(record, claim, step, by=shards.add_checkpoint):
    record.run(by, claim, step=step, key=f"jobs/{claim.job_id}/{step}", sha256="ab" * 32, size=9)


def lines(record, job_id):
    return [line.message for line in record.run(jobs.log_lines, job_id)]


def test_a_running_training_is_asked_to_end_and_its_next_worker_knows(record):
    job_id, shard_id = training(record)
    claim = record.claim(shard_id)
    record.renew(claim, progress={"done": 120, "total": 500, "unit": "steps"})
    assert record.run(interventions.end_early, job_id) is Answer.ASKED
    record.renew(claim, progress={"done": 121, "total": 500, "unit": "steps"}, seq=2)
    first = record.job(job_id).stop_asked_at
    assert record.run(interventions.end_early, job_id) is Answer.ASKED
    assert record.job(job_id).stop_asked_at == first is not None
    assert record.run(interventions.ending_early, [job_id]) == {job_id}
    record.release(claim)
    assert record.claim(shard_id, owner="bob") is not None
    brief = record.run(jobs.briefs, [job_id])[job_id]
    assert (brief.stop_asked_at, brief.stop_after) == (first, 120)
    assert "told to end early and to keep its best weights" in lines(record, job_id)


def test_a_training_that_ends_early_succeeds_once_and_is_not_asked_again(record):
    job_id, shard_id = training(record)
    claim = record.claim(shard_id)
    record.run(interventions.end_early, job_id)
    record.run(shards.commit, claim, [])
    assert record.job(job_id).status in {"finalizing", "succeeded"}
    with pytest.raises(LeaseLost):
        record.run(shards.commit, claim, [])


def test_one_that_was_asked_to_end_can_still_be_cancelled(record):
    job_id, shard_id = training(record)
    claim = record.claim(shard_id)
    record.run(interventions.end_early, job_id)
    assert record.cancel(job_id)
    with pytest.raises(Cancelled):
        record.run(shards.commit, claim, [])
    assert record.run(interventions.end_early, job_id) is Answer.ENDED


def test_one_that_has_not_begun_is_cancelled_unless_its_line_has_a_checkpoint(record):
    waiting, _ = training(record)
    assert record.run(interventions.end_early, waiting) is Answer.CANCELLED
    first, shard_id = training(record)
    save(record, record.claim(shard_id), 10)
    record.cancel(first)
    retry, _ = training(record, retry_of=first)
    assert record.run(interventions.end_early, retry) is Answer.ASKED


def test_only_trainings_have_weights_to_keep(record):
    job_id, _ = record.add()
    with pytest.raises(Refused, match=r"kind generate.*without --keep"):
        record.run(interventions.end_early, job_id)
    with pytest.raises(NotFound):
        record.run(interventions.end_early, "0" * 8)


def test_only_the_holder_of_a_shard_cancels_what_has_nothing_to_keep(record):
    job_id, shard_id = training(record)
    claim = record.claim(shard_id)
    record.release(claim)
    heir = record.claim(shard_id, owner="bob")
    with pytest.raises(LeaseLost):
        record.run(interventions.cancel_unkept, claim, "nothing")
    record.run(interventions.cancel_unkept, heir, "nothing to keep")
    assert record.job(job_id).status == "cancelled"


def test_a_cancelled_training_leaves_its_last_checkpoint_within_its_attempt(record):
    job_id, shard_id = training(record)
    claim = record.claim(shard_id)
    save(record, claim, 5)
    record.cancel(job_id)
    save(record, claim, 8, by=shards.leave_checkpoint)
    assert [each.step for each in record.run(shards.checkpoints_of_line, job_id)] == [8, 5]
    with record.database.read() as session:
        left = session.get_one(Checkpoint, (shard_id, 8))
        ended_at = session.scalar(select(Attempt.ended_at).where(Attempt.shard_id == shard_id))
    assert left.created_at == ended_at


def test_a_retry_waits_for_none_of_a_clock_that_was_ahead(record):
    job_id, shard_id = training(record)
    record.claim(shard_id)
    record.cancel(job_id)
    again, _ = training(record, retry_of=job_id)
    assert record.run(shards.is_being_left, again)

    def move(session):
        ahead = clock(session) + timedelta(days=1)
        session.execute(update(Attempt).values(ended_at=ahead))

    record.run(move)
    assert not record.run(shards.is_being_left, again)


def test_nobody_else_leaves_one(record):
    job_id, shard_id = training(record)
    claim = record.claim(shard_id)
    with pytest.raises(LeaseLost):  # it runs
        save(record, claim, 8, by=shards.leave_checkpoint)
    record.release(claim)
    record.claim(shard_id, owner="bob")
    record.cancel(job_id)
    with pytest.raises(LeaseLost):  # another one's claim was cancelled
        save(record, claim, 9, by=shards.leave_checkpoint)


def order(record):
    """The jobs in the order in which their next shards are claimed."""
    found = []
    while claims := record.run(shards.claim_due, owner="w", lease_s=60):
        found += [claim.job_id for claim in claims]
    return found


def test_what_is_queued_is_chosen_by_its_new_priority(each_record):
    first, second, third = (each_record.add((0, 1))[0] for _ in range(3))
    assert each_record.run(interventions.prioritise, [third], 5) == [third]
    assert each_record.run(interventions.prioritise, [first], -1) == [first]
    assert order(each_record) == [third, second, first]


def test_the_jobs_of_a_batch_are_chosen_by_theirs(record):
    single, _ = record.add((0, 1))
    batch = record.run(batches.add, 2).id
    both = [record.add((0, 1), batch_id=batch)[0] for _ in range(2)]
    record.run(batches.complete, batch)
    record.run(interventions.prioritise, both, 3)
    assert order(record) == [*both, single]


def test_a_shard_that_comes_back_has_the_new_priority_and_a_job_is_complete_as_ever(record):
    job_id, running, succeeded = record.add((0, 1), (1, 2))
    claim, other = record.claim(running), record.claim(succeeded)
    record.commit(other)
    record.run(interventions.prioritise, [job_id], 7)
    with record.database.read() as session:
        urgencies = session.scalars(select(Shard.urgency).where(Shard.job_id == job_id)).all()
    assert urgencies == [-7, -7]
    record.release(claim)
    assert record.run(jobs.complete, [job_id]) == []
    record.commit(record.claim(running, owner="bob"))
    assert record.job(job_id).status == "finalizing"


def test_what_waits_for_a_job_goes_with_it_and_what_has_ended_stays(record):
    ended, _ = record.add()
    record.cancel(ended)
    first, _ = training(record)
    then = record.run(
        jobs.add,
        spec={},
        spec_hash="ab" * 32,
        kind="evaluate",
        model="m",
        ranges=[],
        after_id=first,
    )
    changed = record.run(interventions.prioritise, [ended, first], 4)
    assert changed == [first, then.id]
    assert [record.job(each).priority for each in (ended, first, then.id)] == [0, 4, 4]


def test_a_job_that_waited_begins_with_the_priority_that_it_has_then(record):
    first, _ = training(record)
    how = {"spec": {}, "spec_hash": "ab" * 32, "kind": "evaluate", "model": "m"}
    then = record.run(jobs.add, ranges=[], after_id=first, **how)
    prepared = NewJob("evaluate", "{}", "ab" * 32, "m", [(0, 1)])
    record.run(interventions.prioritise, [first], 4)
    assert record.run(chains.release, then.id, prepared)
    with record.database.read() as session:
        assert session.scalar(select(Shard.urgency).where(Shard.job_id == then.id)) == -4


def test_a_note_is_set_replaced_and_removed(record):
    job_id, _ = record.add()
    for text, kept in (("for May", "for May"), ("  for June\n", "for June"), ("", None)):
        record.run(interventions.annotate, job_id, text)
        assert record.job(job_id).note == kept
    with pytest.raises(Refused, match="1,001 characters; allowed are 1,000"):
        record.run(interventions.annotate, job_id, "x" * 1001)


def test_jobs_are_found_by_who_enqueued_them(record):
    owners = ("ann@mill", "ann@shed", "anna@mill", None)
    ids = {owner: record.add(owner=owner)[0] for owner in owners}

    def found(owner):
        return [job.id for job in record.run(jobs.listing, owner=owner)]

    assert found("ann@mill") == [ids["ann@mill"]]
    assert found("ann") == [ids["ann@shed"], ids["ann@mill"]]
    assert found("a%") == found("nobody") == []


def test_the_time_of_the_wish_is_the_databases(record):
    job_id, shard_id = training(record)
    record.claim(shard_id)
    before = record.run(clock)
    record.run(interventions.end_early, job_id)
    with record.database.read() as session:
        asked_at = session.scalar(select(Job.stop_asked_at).where(Job.id == job_id))
    assert before <= asked_at <= record.run(clock)
