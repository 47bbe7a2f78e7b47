"""A shard that a machine declines goes to others, for as long as one may take it."""

import pytest

from db import shards, workers
from db.attempts import MAX_DECLINES
from db.session import clock
from db.tables import Shard
from tests.attempts import attempts_at


@pytest.fixture
def fleet(record):
    """A record with three workers, two of them on one machine."""
    for boot, host in (("ann", "small"), ("abe", "small"), ("bob", "large")):
        record.run(workers.start, boot_id=boot, host=host, pid=1, device="cpu")
    return record


def decline(record, shard_id, owner="ann", *, lasting=True, max_failures=3):
    """Claim and decline a shard at once, whatever its pause; its new state."""
    record.run(wake, shard_id)
    claim = record.claim(shard_id, owner=owner)
    how = {"lasting": lasting, "max_failures": max_failures}
    return str(record.run(shards.decline, claim, "too large for this machine", **how))


def wake(session, shard_id):
    session.get(Shard, shard_id).not_before = clock(session)


def test_nothing_is_counted_and_the_pause_grows_to_a_minute(record):
    _, shard_id = record.add()
    pauses = []
    for _ in range(8):
        assert decline(record, shard_id, lasting=False) == "queued"
        shard = record.shard(shard_id)
        pauses.append((shard.not_before - record.run(clock)).total_seconds())
    assert [round(pause / 2) * 2 for pause in pauses] == [2, 4, 8, 16, 32, 60, 60, 60]
    assert (shard.failures, shard.releases, shard.claims) == (0, 8, 8)
    assert {each["outcome"] for each in record.run(attempts_at, shard_id)} == {"declined"}
    assert record.claim(shard_id) is None
    assert shard.last_error == "too large for this machine"


def test_what_may_pass_is_tried_for_a_quarter_of_an_hour(fleet):
    job_id, shard_id = fleet.add()
    states = [decline(fleet, shard_id, lasting=False) for _ in range(MAX_DECLINES)]
    assert states == ["queued"] * (MAX_DECLINES - 1) + ["failed"]
    assert fleet.job(job_id).error.endswith(
        f"too large for this machine (tried {MAX_DECLINES} times)"
    )


def test_what_lasts_goes_to_each_machine_and_ends_when_all_have_declined(fleet):
    job_id, shard_id = fleet.add()
    for owner in ("ann", "ann", "abe", "abe", "ann"):
        assert decline(fleet, shard_id, owner) == "queued", "the large machine may take it"
    assert decline(fleet, shard_id, "bob") == "failed"
    assert fleet.job(job_id).status == "failed"


def test_another_machine_may_do_it(fleet):
    _, shard_id = fleet.add()
    for _ in range(5):
        decline(fleet, shard_id, "ann")
    fleet.run(wake, shard_id)
    fleet.commit(fleet.claim(shard_id, owner="bob"))
    assert fleet.shard(shard_id).status == "succeeded"


def test_a_machine_alone_tries_as_often_as_failures_are_allowed(record):
    _, shard_id = record.add()
    assert [decline(record, shard_id) for _ in range(3)] == ["queued", "queued", "failed"]


def test_declines_make_no_poison(record):
    _, shard_id = record.add()
    for _ in range(5):
        decline(record, shard_id, lasting=False)
    record.run(wake, shard_id)
    record.claim(shard_id, lease_s=-1)
    assert record.run(shards.reap, max_claims=2) == [shard_id]
