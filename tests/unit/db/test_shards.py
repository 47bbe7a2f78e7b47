"""The lease protocol, one step at a time."""

import pytest
from sqlalchemy import func, select

from db import artifacts, jobs, shards
from db.commits import NewManifest, Range
from db.errors import Cancelled, GenmillError, LeaseLost
from db.session import clock
from db.shards import NewArtifact
from db.tables import Attempt, Shard, Transition
from tests.attempts import attempts_at

EXPIRED = -1  # a lease that is over as soon as it is given
PREVIEW = NewArtifact("preview", "preview.png", "jobs/j/blobs/a", "a" * 64, 10, "image/png")


def attempts(record, shard_id):
    return record.run(attempts_at, shard_id)


def test_a_claim_moves_shard_and_job_to_running_and_records_the_attempt(record):
    job_id, shard_id = record.add((0, 4))
    claim = record.claim(shard_id, owner="ann")
    assert (claim.job_id, claim.fence, claim.start, claim.stop) == (job_id, 1, 0, 4)
    assert record.shard(shard_id).status == "running"
    assert record.job(job_id).status == "running"
    assert record.job(job_id).started_at is not None
    [attempt] = attempts(record, shard_id)
    assert (attempt["fence"], attempt["worker"], attempt["ended_at"]) == (1, "ann", None)
    assert attempt["started_at"] is not None


def test_a_second_worker_cannot_claim_a_running_shard(record):
    _, shard_id = record.add()
    assert record.claim(shard_id, owner="ann")
    assert record.claim(shard_id, owner="bob") is None


def test_an_unknown_shard_cannot_be_claimed(record):
    assert record.claim("no-such-shard") is None


def test_a_shard_of_an_ended_job_cannot_be_claimed(record):
    job_id, shard_id = record.add()
    record.cancel(job_id)
    assert record.claim(shard_id) is None


def test_an_expired_lease_is_taken_over_and_the_zombie_changes_nothing(record):
    _, shard_id = record.add()
    zombie = record.claim(shard_id, owner="ann", lease_s=EXPIRED)
    heir = record.claim(shard_id, owner="bob")
    assert heir.fence == zombie.fence + 1
    for step in (
        lambda: record.commit(zombie),
        lambda: record.fail(zombie, final=True),
        lambda: record.release(zombie),
        lambda: record.renew(zombie),
        lambda: record.run(shards.put_artifact, zombie, PREVIEW),
        lambda: record.run(shards.add_checkpoint, zombie, step=1, key="k", sha256="a" * 64, size=1),
    ):
        with pytest.raises(LeaseLost):
            step()
    record.commit(heir)
    first, second = attempts(record, shard_id)
    assert (first["worker"], first["outcome"]) == ("ann", "lost")
    assert (second["worker"], second["outcome"]) == ("bob", "succeeded")
    assert first["started_at"] <= first["ended_at"] <= second["started_at"] <= second["ended_at"]


def test_the_same_owner_with_an_old_fence_is_refused(record):
    _, shard_id = record.add()
    old = record.claim(shard_id, owner="ann", lease_s=EXPIRED)
    record.claim(shard_id, owner="ann")
    with pytest.raises(LeaseLost):
        record.commit(old)


def test_a_renewed_lease_holds(record):
    _, shard_id = record.add()
    claim = record.claim(shard_id, lease_s=EXPIRED)
    record.renew(claim, seq=7)
    assert record.claim(shard_id, owner="bob") is None
    assert record.shard(shard_id).heartbeat_seq == 7


def test_a_late_commit_counts_while_nobody_took_over(record):
    job_id, shard_id = record.add()
    record.commit(record.claim(shard_id, lease_s=EXPIRED))
    assert record.job(job_id).status == "finalizing"


def test_a_commit_records_artifacts_and_the_end(record):
    job_id, first, second = record.add((0, 3), (3, 5))
    record.commit(record.claim(second))
    assert record.job(job_id).status == "running"
    record.commit(record.claim(first))
    assert record.job(job_id).status == "finalizing"
    stored = record.run(artifacts.of_job, job_id)
    assert [each.members_sha256 for each in stored] == [f"{0:064x}", f"{3:064x}"]
    assert record.shard(first).lease_until is None


def test_a_commit_records_the_last_progress_report(record):
    job_id, shard_id = record.add((0, 1), kind="train")
    claim = record.claim(shard_id)
    record.renew(claim, progress={"done": 4, "total": 5})
    record.run(shards.commit, claim, [], report={"done": 5, "total": 5})
    assert record.progress(job_id) == {"done": 5, "total": 5}


def test_a_commit_happens_once(record):
    _, shard_id = record.add()
    claim = record.claim(shard_id)
    record.commit(claim)
    with pytest.raises(LeaseLost):
        record.commit(claim)
    assert record.run(shards.outcome, claim) == "succeeded"


def test_a_running_claim_has_no_outcome(record):
    _, shard_id = record.add()
    assert record.run(shards.outcome, record.claim(shard_id)) is None


@pytest.mark.parametrize("stop", [3, 5])
def test_a_commit_with_too_few_or_too_many_samples_is_refused(record, stop):
    _, shard_id = record.add((0, 4))
    claim = record.claim(shard_id)
    index = shards.NewIndex(range(stop), "a" * 64)
    made = [NewArtifact("samples", "s.tar", "k", "a" * 64, 1, "application/x-tar", index)]
    with pytest.raises(GenmillError, match="samples 0 to 3"):
        record.run(shards.commit, claim, made)
    assert record.shard(shard_id).status == "running"


def test_a_heartbeat_tells_of_the_cancellation(record):
    job_id, shard_id = record.add()
    claim = record.claim(shard_id)
    assert record.cancel(job_id)
    with pytest.raises(Cancelled):
        record.renew(claim)
    with pytest.raises(Cancelled):
        record.commit(claim)
    with pytest.raises(Cancelled):
        record.fail(claim, final=True)
    assert record.job(job_id).status == "cancelled"
    assert attempts(record, shard_id)[0]["outcome"] == "cancelled"
    assert record.run(shards.outcome, claim) == "cancelled"


def test_failures_are_retried_up_to_the_limit(record):
    job_id, shard_id = record.add()
    assert record.fail(record.claim(shard_id), max_failures=2) == "queued"
    assert record.fail(record.claim(shard_id), max_failures=2) == "failed"
    assert record.job(job_id).status == "failed"
    assert record.job(job_id).error == "samples 0 to 3: it broke"
    ends = [(a["outcome"], a["error"]) for a in attempts(record, shard_id)]
    assert ends == [("failed", "it broke")] * 2


def test_a_shard_that_failed_waits_before_it_is_claimed_again(record):
    _, shard_id = record.add()
    record.fail(record.claim(shard_id), backoff_s=1000)
    assert record.claim(shard_id) is None
    assert record.shard(shard_id).last_error == "it broke"
    assert record.shard(shard_id).not_before > record.run(clock)


def test_a_final_failure_fails_the_job_and_cancels_its_other_shards(record):
    job_id, first, second, third = record.add((0, 4), (4, 8), (8, 12))
    doomed, busy = record.claim(first), record.claim(second)
    assert record.fail(doomed, "not a finite number", final=True) == "failed"
    assert record.job(job_id).status == "failed"
    assert [record.shard(i).status for i in (first, second, third)] == [
        "failed",
        "cancelled",
        "cancelled",
    ]
    with pytest.raises(Cancelled):
        record.renew(busy)


def test_samples_committed_before_a_job_failed_stay(record):
    job_id, first, second = record.add((0, 2), (2, 4))
    record.commit(record.claim(first))
    record.fail(record.claim(second), final=True)
    assert [row.name for row in record.run(artifacts.of_job, job_id)] == ["samples-00000.tar"]
    assert record.shard(first).status == "succeeded"


def test_a_release_counts_no_failure_and_is_due_at_once(record):
    _, shard_id = record.add()
    for _ in range(20):
        record.release(record.claim(shard_id))
    claim = record.claim(shard_id)
    assert claim.fence == 21
    assert record.shard(shard_id).failures == 0


def test_a_release_with_a_pause_waits(record):
    _, shard_id = record.add()
    record.release(record.claim(shard_id), backoff_s=1000)
    assert record.claim(shard_id) is None


def test_reaping_puts_an_expired_shard_back_and_leaves_live_ones(record):
    _, dead, live = record.add((0, 4), (4, 8))
    record.claim(dead, lease_s=EXPIRED)
    record.claim(live)
    assert record.run(shards.reap) == [dead]
    assert record.shard(dead).status == "queued"
    assert record.shard(live).status == "running"
    assert attempts(record, dead)[0]["outcome"] == "lost"


def test_a_running_shard_without_a_lease_is_reaped(record):
    _, shard_id = record.add()
    record.claim(shard_id)

    def forget(session):
        session.get(Shard, shard_id).lease_until = None

    record.run(forget)
    assert record.run(shards.reap) == [shard_id]


def test_a_shard_that_kills_its_workers_is_poison_at_the_limit(record):
    job_id, shard_id = record.add()
    for _ in range(2):
        record.claim(shard_id, lease_s=EXPIRED)
        assert record.run(shards.reap, max_claims=3) == [shard_id]
    record.claim(shard_id, lease_s=EXPIRED)
    assert record.run(shards.reap, max_claims=3) == []
    assert record.job(job_id).status == "failed"
    assert "poison: its workers stopped reporting 3 times" in record.job(job_id).error


def test_failures_and_releases_do_not_make_poison(record):
    _, shard_id = record.add()
    for _ in range(3):
        record.release(record.claim(shard_id))
        record.fail(record.claim(shard_id), max_failures=9)
    record.claim(shard_id, lease_s=EXPIRED)
    assert record.run(shards.reap, max_claims=2) == [shard_id]


def test_takeovers_stop_at_the_limit_of_claims(record):
    _, shard_id = record.add()
    for _ in range(3):
        assert record.claim(shard_id, lease_s=EXPIRED, max_claims=3)
    assert record.claim(shard_id, lease_s=EXPIRED, max_claims=3) is None


def test_a_preview_is_replaced_by_the_next_of_its_name(record):
    job_id, shard_id = record.add(kind="train")
    claim = record.claim(shard_id)
    record.run(shards.put_artifact, claim, PREVIEW)
    newer = NewArtifact("preview", "preview.png", "jobs/j/blobs/b", "b" * 64, 11, "image/png")
    record.run(shards.put_artifact, claim, newer)
    [found] = record.run(artifacts.of_job, job_id, "preview")
    assert (found.sha256, found.size) == ("b" * 64, 11)


def test_progress_counts_committed_and_running_samples(record):
    job_id, first, second = record.add((0, 4), (4, 10))
    record.commit(record.claim(first))
    claim = record.claim(second)
    record.renew(claim, progress={"done": 3, "total": 6, "unit": "samples"})
    seen = record.progress(job_id)
    assert (seen["done"], seen["total"], seen["unit"]) == (7, 10, "samples")
    record.release(claim)
    assert record.progress(job_id)["done"] == 4


def test_progress_of_a_training_is_its_last_report(record):
    job_id, shard_id = record.add((0, 1), kind="train")
    claim = record.claim(shard_id)
    record.renew(claim, progress={"done": 3, "total": 6, "unit": "steps", "eta_s": 2.5})
    assert record.progress(job_id) == {"done": 3, "total": 6, "unit": "steps", "eta_s": 2.5}


@pytest.mark.parametrize("kind", ["generate", "train"])
def test_progress_tells_why_a_shard_waits(record, kind):
    job_id, shard_id = record.add((0, 1), kind=kind)
    record.release(record.claim(shard_id), "draining")  # it can be claimed at once
    assert "waits_for" not in record.progress(job_id)
    record.release(record.claim(shard_id), "the folder is not there", backoff_s=60)
    assert record.progress(job_id)["waits_for"] == "the folder is not there"


def test_changes_of_a_job_and_unusual_ones_of_its_shards_are_recorded(record):
    job_id, shard_id = record.add()
    record.release(record.claim(shard_id))
    record.claim(shard_id, lease_s=EXPIRED)
    record.commit(record.claim(shard_id, owner="bob"))
    moves = [(m.shard_id is None, m.old, m.new) for m in record.run(jobs.transitions, job_id)]
    assert sorted(moves, key=str) == sorted(
        [
            (True, None, "queued"),
            (True, "queued", "running"),
            (True, "running", "finalizing"),
            (False, "running", "queued"),
            (False, "running", "running"),
        ],
        key=str,
    )


def test_a_shard_that_just_succeeds_is_one_row(record):
    job_id, *ids = record.add((0, 2), (2, 4))
    for shard_id in ids:
        claim = record.claim(shard_id, owner="ann")
        record.renew(claim, progress={"done": 1})
        record.commit(claim)
        shard = record.shard(shard_id)
        assert (shard.owner, shard.fence, shard.report) == ("ann", 1, None)
        assert shard.started_at <= shard.ended_at
    assert record.run(count_rows, Attempt) == 0
    assert all(move.shard_id is None for move in record.run(jobs.transitions, job_id))


def count_rows(session, table):
    return session.scalar(select(func.count()).select_from(table))


def commit_many(record, *claims, whole=True):
    results = [shards.Result(each, record.samples_of(each) if whole else []) for each in claims]
    return record.run(shards.commit_many, results)


def test_shards_of_many_jobs_are_committed_together_each_under_its_own_fence(record):
    jobs_and_shards = [record.add((0, 2)) for _ in range(4)]
    claims = [record.claim(shard_id) for _, shard_id in jobs_and_shards]
    record.cancel(claims[0].job_id)
    record.release(claims[1])
    record.claim(claims[1].shard_id, owner="bob")
    outcomes = commit_many(record, *claims)
    assert [type(outcomes[claim.shard_id]) for claim in claims] == [
        Cancelled,
        LeaseLost,
        type(None),
        type(None),
    ]
    states = [record.job(job_id).status for job_id, _ in jobs_and_shards]
    assert states == ["cancelled", "running", "finalizing", "finalizing"]


def test_a_job_whose_manifest_is_stored_succeeds_with_its_only_shard(each_record):
    job_id, shard_id = each_record.add((0, 2))
    claim = each_record.claim(shard_id)
    manifest = NewManifest(Range(7, 3, 40), "ef" * 32)
    results = [shards.Result(claim, each_record.samples_of(claim), manifest=manifest)]
    assert each_record.run(shards.commit_many, results) == {shard_id: None}
    job = each_record.job(job_id)
    assert (job.status, job.packed_manifest) == ("succeeded", manifest.place)
    assert job.finished_at == each_record.shard(shard_id).ended_at
    assert each_record.run(count_rows, Transition) == 0
    moves = [(move.old, move.new) for move in each_record.run(jobs.transitions, job_id)]
    assert moves == [(None, "queued"), ("queued", "running"), ("running", "succeeded")]


def test_a_commit_of_several_has_objects_then_shards_then_ends_of_jobs(each_record):
    made = [each_record.add((0, 2)) for _ in range(6)]
    for _, shard_id in made[:3]:  # of another fence, so that another statement ends them
        each_record.release(each_record.claim(shard_id))
    claims = [each_record.claim(shard_id) for _, shard_id in made]
    manifest = NewManifest(Range(7, 3, 40), "ef" * 32)
    results = [shards.Result(each, each_record.samples_of(each), None, manifest) for each in claims]
    each_record.run(shards.commit_many, results)
    for job_id, shard_id in made:
        ended_at = each_record.shard(shard_id).ended_at
        assert each_record.job(job_id).finished_at >= ended_at
        for artifact in each_record.run(artifacts.of_job, job_id):
            assert each_record.shard(shard_id).started_at <= artifact.created_at <= ended_at


def test_an_incomplete_shard_harms_no_other(record):
    claims = [record.claim(record.add()[1]) for _ in range(2)]
    results = [shards.Result(claims[0], []), shards.Result(claims[1], record.samples_of(claims[1]))]
    outcomes = record.run(shards.commit_many, results)
    assert "samples 0 to 3" in str(outcomes[claims[0].shard_id])
    assert outcomes[claims[1].shard_id] is None
    assert record.shard(claims[0].shard_id).status == "running"


def test_the_last_of_several_shards_leaves_the_job_to_be_settled(record):
    job_id, *ids = record.add((0, 2), (2, 4))
    for shard_id in ids:
        commit_many(record, record.claim(shard_id))
    assert record.job(job_id).status == "running"
    assert record.run(jobs.complete, [job_id]) == [job_id]
    assert record.run(jobs.next_to_finalize, 10) == [job_id]


def test_one_renewal_tells_which_of_many_leases_are_held(each_record):
    record = each_record
    claims = [record.claim(record.add()[1]) for _ in range(3)]
    record.cancel(claims[0].job_id)
    beats = {each.shard_id: shards.Beat(each.fence, 5, {"done": 1}) for each in claims}
    beats[claims[1].shard_id] = shards.Beat(claims[1].fence + 1)
    renewed = record.run(shards.renew_all, "ann", beats, lease_s=60)
    assert renewed == {claims[2].shard_id}
    assert record.run(shards.renew_all, "bob", beats, lease_s=60) == set()
    shard = record.shard(claims[2].shard_id)
    assert (shard.heartbeat_seq, shard.report) == (5, {"done": 1})


def test_a_shard_that_kills_its_workers_makes_no_other_poison(record):
    ids = [record.add((0, 1), work_key=7)[1] for _ in range(20)]
    bad = ids[11]
    while True:
        claims = record.run(shards.claim_due, owner="ann", lease_s=EXPIRED, limit=100)
        if not claims:
            break
        if bad in [claim.shard_id for claim in claims]:
            record.run(shards.reap, max_claims=4)
        else:
            commit_many(record, *claims)
    states = {shard_id: record.shard(shard_id).status for shard_id in ids}
    assert states.pop(bad) == "failed"
    assert set(states.values()) == {"succeeded"}
