"""The commit of shards that are each their job's only one: the jobs succeed with it."""

import pytest

from db import jobs, shards
from db.errors import Cancelled, Unreachable
from tests.shards import add_job, claim, read
from worker.files import canonical_json
from worker.services.finalize import finalize_due, read_manifest
from worker.shards.commits import commit
from worker.shards.context import ShardResult
from worker.shards.heartbeat import Heartbeat
from worker.shards.lease import Lease
from worker.shared_memory import SharedState
from worker.store.packs import PackWriter


@pytest.fixture
def heartbeat(services):
    return Heartbeat(services, "w", pause_s=lambda s: s, on_hang=lambda: None)


def made_together(services, count):
    """Jobs of one sample, each claimed, with what their shards made; their samples in one pack."""
    pack, made, added = PackWriter(), {}, []
    for number in range(count):
        job = add_job(services)
        held = claim(services, job)
        place = pack.add(b"%d" % number)
        index = shards.NewIndex(range(held.start, held.stop), "0" * 64, data=bytes(44))
        artifact = shards.NewArtifact(
            "samples", "s.tar", place.key, f"{number:064x}", 1, "application/x-tar", index, place
        )
        manifest = jobs.manifest_to_be(held, job.spec_hash, [artifact])
        lease = Lease(services, held, shared=SharedState())
        made[lease] = ShardResult([artifact], manifest=manifest)
        added.append(job)
    pack.store(services.store)
    return added, made


@pytest.mark.parametrize("count", [1, 3])
def test_jobs_succeed_with_the_commit_and_have_the_manifest_that_the_record_derives(
    services, heartbeat, count
):
    added, made = made_together(services, count)
    outcomes = commit(heartbeat, made, SharedState())
    assert [*outcomes.values()] == [None] * count
    for job in (read(services, each) for each in added):
        with services.database.read() as session:
            derived = canonical_json(jobs.manifest(session, job.id))
        assert job.status == "succeeded"
        assert read_manifest(services, job) == derived
    assert finalize_due(services) == 0


def test_a_job_cancelled_meanwhile_does_not_succeed_and_the_others_do(services, heartbeat):
    added, made = made_together(services, 3)
    services.database.transact(lambda session: jobs.cancel(session, added[1].id))
    found = commit(heartbeat, made, SharedState())
    outcomes = [found[lease.claim.shard_id] for lease in made]
    assert [type(each) for each in outcomes] == [type(None), Cancelled, type(None)]
    states = [read(services, job).status for job in added]
    assert states == ["succeeded", "cancelled", "succeeded"]
    assert read(services, added[1]).packed_manifest is None


def test_manifests_that_cannot_be_stored_are_left_to_the_scheduler(
    services, heartbeat, monkeypatch
):
    added, made = made_together(services, 3)

    def away(*_, **__):
        raise Unreachable("the store is away")

    monkeypatch.setattr(services.store, "put_as", away)
    assert [*commit(heartbeat, made, SharedState()).values()] == [None] * 3
    assert {read(services, job).status for job in added} == {"finalizing"}
    monkeypatch.undo()
    assert finalize_due(services) == 3
    assert {read(services, job).status for job in added} == {"succeeded"}


def test_a_commit_whose_reply_was_lost_counts_once(services, heartbeat):
    added, made = made_together(services, 2)
    commit(heartbeat, made, SharedState())
    before = [read(services, job).packed_manifest for job in added]
    assert [*commit(heartbeat, made, SharedState()).values()] == [None, None]
    assert [read(services, job).packed_manifest for job in added] == before
