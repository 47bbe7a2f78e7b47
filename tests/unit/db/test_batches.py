"""Incomplete batches are invisible, complete ones whole, abandoned ones deleted in steps."""

import pytest
from sqlalchemy import func, select

from db import batches, jobs, shards
from db.columns import fresh_ids, new_id
from db.errors import GenmillError, NotFound
from db.new_jobs import PIECE_ROWS, NewJob, insert_piece, pieces
from db.tables import Batch, Job, Shard


def new_job(number=0, shards=1):
    ranges = [(n, n + 1) for n in range(shards)]
    return NewJob("generate", '{"seed": 1}', "ab" * 32, "digits", ranges, custom_id=str(number))


def store(record, *new, size=None):
    """Insert jobs under a new batch, which stays incomplete; return its id."""
    batch = record.run(batches.add, len(new) if size is None else size)
    for piece in pieces(new, batch_id=batch.id):
        record.run(insert_piece, piece)
    return batch.id


def count(record, table):
    return record.run(lambda session: session.scalar(select(func.count()).select_from(table)))


def delete_all(record, batch_id, limit=1000):
    while record.run(lambda session: session.get(Batch, batch_id)):
        record.run(batches.delete_some, batch_id, limit)


def test_jobs_of_an_incomplete_batch_are_neither_listed_nor_counted_nor_found(each_record):
    batch_id = store(each_record, new_job(0), new_job(1))
    (first, _) = each_record.run(batches.job_ids, batch_id)
    assert each_record.run(jobs.listing) == []
    assert each_record.run(jobs.listing, batch=batch_id) == []
    assert each_record.run(jobs.counts)["queued"] == 0
    assert each_record.run(jobs.unfinished, model="digits") == []
    for find, reference in ((jobs.get, first), (batches.get, batch_id)):
        with pytest.raises(NotFound):
            each_record.run(find, reference)


def test_jobs_of_an_incomplete_batch_that_wait_are_not_counted_either(each_record):
    first = new_job(0)._replace(id=new_id())
    batch_id = store(each_record, first, new_job(1, shards=0)._replace(after_id=first.id))
    assert set(each_record.run(jobs.counts).values()) == {0}
    each_record.run(batches.complete, batch_id)
    found = each_record.run(jobs.counts)
    assert (found["queued"], found["waiting"]) == (1, 1)


def test_jobs_of_an_incomplete_batch_are_not_chosen_to_run(each_record):
    batch_id = store(each_record, new_job())
    choose = {"per_worker": 4, "deadline_s": 60}
    (shard_id,) = each_record.run(lambda session: session.scalars(select(Shard.id)).all())
    claim = {"shard_id": shard_id, "owner": new_id(), "lease_s": 60}
    assert each_record.run(shards.take_due, **choose) == []
    assert each_record.run(shards.claim, **claim) is None  # whoever rings for it
    each_record.run(batches.complete, batch_id)
    assert len(each_record.run(shards.take_due, **choose)) == 1
    assert each_record.run(shards.claim, **claim)


def test_completing_a_batch_shows_all_its_jobs_in_the_order_of_its_lines(each_record):
    new = [new_job(number) for number in range(PIECE_ROWS)]
    batch_id = store(each_record, *new)
    each_record.run(batches.complete, batch_id)
    found = each_record.run(batches.jobs_of, batch_id, with_spec=True)
    assert [job.custom_id for job in found] == [job.custom_id for job in new]
    assert each_record.run(jobs.counts)["queued"] == len(new)
    assert found[0].spec == {"seed": 1}
    again = each_record.run(batches.complete, batch_id)
    assert again.complete_at == each_record.run(batches.get, batch_id).complete_at


def test_a_batch_that_is_being_deleted_cannot_be_completed(each_record):
    batch_id = store(each_record, new_job(0), new_job(1))
    each_record.run(batches.delete_some, batch_id, 1)
    with pytest.raises(GenmillError, match="is being deleted; submit it again"):
        each_record.run(batches.complete, batch_id)
    assert each_record.run(jobs.listing) == []


def test_a_job_of_many_shards_is_spread_over_pieces(record):
    wanted = [new_job(0, shards=2 * PIECE_ROWS), new_job(1)]
    made = list(pieces(wanted))
    assert [piece.rows for piece in made] == [PIECE_ROWS, PIECE_ROWS, 3]
    for piece in made:
        record.run(insert_piece, piece)
    (job,) = record.run(lambda s: s.scalars(select(Job).where(Job.custom_id == "0")).all())
    found = record.run(jobs.shards_of, job.id)
    assert [shard.idx for shard in found] == list(range(2 * PIECE_ROWS))
    assert {shard.status for shard in found} == {"queued"}


def test_an_abandoned_batch_is_deleted_in_steps_and_nothing_else_is(each_record):
    kept = each_record.add()[0]
    batch_id = store(each_record, *(new_job(number, shards=2) for number in range(5)))
    assert each_record.run(batches.abandoned, 60) == []
    assert each_record.run(batches.abandoned, -1) == [batch_id]
    assert each_record.run(batches.delete_some, batch_id, 3) == 3
    assert count(each_record, Job) == 3
    delete_all(each_record, batch_id, 3)
    assert [job.id for job in each_record.run(jobs.listing)] == [kept]
    assert [count(each_record, table) for table in (Batch, Job, Shard)] == [0, 1, 1]


def test_jobs_of_many_shards_are_deleted_in_steps_too(record, monkeypatch):
    monkeypatch.setattr(batches, "SHARDS_AT_ONCE", 4)
    batch_id = store(record, *(new_job(number, shards=5) for number in range(2)))
    left = []
    while record.run(lambda session: session.get(Batch, batch_id)):
        record.run(batches.delete_some, batch_id)
        left.append((count(record, Shard), count(record, Job)))
    assert left == [(6, 2), (2, 2), (0, 0)]


def test_a_batch_without_jobs_is_abandoned_too(record):
    batch_id = store(record, size=3)
    assert record.run(batches.abandoned, -1) == [batch_id]
    delete_all(record, batch_id)
    assert count(record, Batch) == 0


def test_a_complete_batch_is_never_deleted(record):
    batch_id = store(record, new_job())
    record.run(batches.complete, batch_id)
    assert record.run(batches.delete_some, batch_id) == 0
    assert record.run(batches.abandoned, -1) == []
    assert count(record, Job) == 1


def test_deleting_leaves_the_first_job_for_last_because_it_holds_the_key(record):
    first = new_job(0)._replace(idempotency_key="k")
    batch_id = store(record, first, new_job(1), new_job(2))
    record.run(batches.delete_some, batch_id, 2)
    assert record.run(jobs.by_idempotency_key, "k").custom_id == "0"


def test_ids_ascend_and_their_first_half_is_unique():
    ids = fresh_ids()
    made = [next(ids) for _ in range(10_000)]
    assert made == sorted(made)
    assert len({id_[:18] for id_ in made}) == len(made)
    assert {len(id_) for id_ in made} == {36}
