"""Whether a commit took place is asked, not assumed: its reply is lost at every kind of step."""

from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from db import lost_replies as module
from db import shards, workers
from db.errors import Unreachable
from db.session import Database
from db.tables import Attempt, Checkpoint, Job, Schedule, Shard, Transition, Worker
from tests.cut_commits import Proxy, proxy_to
from tests.unit.db.conftest import Record


@pytest.fixture
def proxy(postgresql_database_url: str) -> Iterator[Proxy]:
    with proxy_to(postgresql_database_url) as made:
        yield made


@pytest.fixture
def record(proxy: Proxy) -> Iterator[Record]:
    database = Database(proxy.url)
    yield Record(database)
    database.dispose()


WAYS = ["reply", "commit", "late", "frozen"]
COUNTED = (Attempt, Checkpoint, Job, Schedule, Shard, Transition, Worker)


def counts(session):
    return {
        each.__name__: session.scalar(select(func.count()).select_from(each)) for each in COUNTED
    }


def claim(record, shard_id):
    return record.claim(shard_id)


def claim_due(record, shard_id):
    (claim,) = record.run(shards.claim_due, owner="ann", lease_s=60)
    return claim


def commit(record, shard_id):
    record.commit(record.running)


def fail(record, shard_id):
    return record.fail(record.running)


def fail_for_good(record, shard_id):
    return record.fail(record.running, final=True)


def release(record, shard_id):
    record.release(record.running)


def renew(record, shard_id):
    record.renew(record.running)


def checkpoint(record, shard_id):
    record.run(shards.add_checkpoint, record.running, step=1, key="k", sha256="c" * 64, size=1)


def cancel(record, shard_id):
    assert record.cancel(record.job_id) is True


def enqueue(record, shard_id):
    job_id, *_ = record.add((0, 2), (2, 4))
    assert record.job(job_id).status == "queued"


def reap(record, shard_id):
    assert record.run(shards.reap_worker, "ann") == [shard_id]


def add_worker(record, shard_id):
    record.run(workers.start, boot_id=shard_id, host="h", pid=1, device="cpu")


def take_due(record, shard_id):
    assert record.run(shards.take_due, per_worker=3, deadline_s=60) == [shard_id]


QUEUED = [claim, claim_due, enqueue, cancel, add_worker, take_due]
RUNNING = [commit, fail, fail_for_good, release, renew, checkpoint, cancel, enqueue, reap]


def change(record, proxy, step, *, running, how):
    """The state of a shard after a step whose COMMIT is cut as told, and the rows it has added."""
    job_id, shard_id = record.add((0, 4))
    record.job_id, record.running = job_id, record.claim(shard_id) if running else None
    before = record.run(counts)
    if how:
        proxy.cut(how)
    step(record, shard_id)
    shard, after = record.shard(shard_id), record.run(counts)
    state = (shard.status, shard.fence, shard.claims, shard.failures, shard.releases)
    record.cancel(job_id)
    added = {name: after[name] - before[name] for name in after}
    return state, record.job(job_id).status, added


def check_once(record, proxy, step, *, running):
    expected = change(record, proxy, step, running=running, how=None)
    assert change(record, proxy, step, running=running, how="reply") == expected
    assert proxy.cuts == 1


@pytest.mark.parametrize("step", QUEUED, ids=lambda step: step.__name__)
def test_a_step_at_a_queued_shard_happens_once_though_the_reply_to_its_commit_is_lost(
    record, proxy, step
) -> None:
    check_once(record, proxy, step, running=False)


@pytest.mark.parametrize("step", RUNNING, ids=lambda step: step.__name__)
def test_a_step_at_a_running_shard_happens_once_though_the_reply_to_its_commit_is_lost(
    record, proxy, step
) -> None:
    check_once(record, proxy, step, running=True)


@pytest.mark.parametrize("how", WAYS)
def test_eight_claims_whose_commits_are_cut_are_held_by_those_who_made_them(
    record, proxy, how
) -> None:
    _, shard_id = record.add((0, 4))
    for number in range(1, 9):
        proxy.cut(how)
        held = record.claim(shard_id, owner=f"w{number}")
        assert (held.owner, held.fence, proxy.cuts) == (f"w{number}", number, number)
        record.release(held)
    assert record.shard(shard_id).claims == 8


def test_a_commit_that_never_arrives_is_made_again_as_one(record, proxy) -> None:
    proxy.cut("commit")
    job_id, *_ = record.add((0, 4))
    with record.database.read() as session:
        assert [job.id for job in session.scalars(select(Job))] == [job_id]


def test_the_id_that_a_submission_returns_is_on_record(record, proxy) -> None:
    for how in WAYS:
        proxy.cut(how)
        job_id, *_ = record.add((0, 4))
        assert record.job(job_id).status == "queued"
    assert record.run(counts)["Job"] == len(WAYS)


def test_a_server_that_stays_away_is_no_answer(record, proxy, monkeypatch) -> None:
    monkeypatch.setattr(module, "ASK_FOR_S", 0.3)
    record.add((0, 4))
    proxy.cut("reply")
    proxy.refuse = True
    with pytest.raises(Unreachable, match="not known whether"):
        record.add((0, 4))
    proxy.refuse = False
    assert record.run(counts)["Job"] == 2


def test_a_transaction_of_another_server_was_not_committed(record) -> None:
    engine = record.database._engine
    assert module._was_committed(engine, str(2**40)) is False


def test_an_error_that_the_server_answers_to_a_commit_is_raised(record) -> None:
    def work(session):
        session.execute(text("CREATE TEMP TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
        session.execute(text("INSERT INTO once VALUES (1), (1)"))

    with pytest.raises(IntegrityError):
        record.run(work)
