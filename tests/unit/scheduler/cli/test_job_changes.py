"""Cancelling and keeping, priorities, notes, owners, and waits that end."""

import json

import pytest

from db import chains, jobs, shards
from worker.identity import who


@pytest.fixture
def training(genmill, pictures) -> str:
    words = ("--dataset", pictures, "--name", "m", "--max-steps", "9")
    return genmill("enqueue", "train", "gan", *words).out.strip()


def begin(services, job_id):
    with services.database.write() as session:
        (shard,) = jobs.shards_of(session, job_id)
        return shards.claim(session, shard.id, owner="0" * 36, lease_s=60)


def shown(genmill, job_id):
    return genmill("job", "show", job_id, "--json").json


def test_a_training_is_told_to_keep_its_weights(genmill, services, training):
    begin(services, training)
    told = genmill("job", "cancel", training, "--keep")
    assert (told.code, told.out) == (0, f"{training}\n")
    assert "ends now; its best weights become a version" in told.err
    job = shown(genmill, training)
    assert (job["status"], job["stop_asked_at"] is not None) == ("running", True)
    again = genmill("job", "cancel", training, "--keep", "--json").json
    assert again == [{"id": training, "cancelled": False, "ends_early": True}]


def test_one_that_has_not_begun_is_cancelled_and_one_that_has_ended_stays(genmill, training):
    told = genmill("job", "cancel", training, "--keep")
    assert (told.out, "nothing to keep" in told.err) == (f"{training}\n", True)
    assert shown(genmill, training)["status"] == "cancelled"
    assert "already ended" in genmill("job", "cancel", training, "--keep").err


def test_other_jobs_have_nothing_to_keep_and_then_no_job_is_changed(genmill, digits, training):
    other = genmill("enqueue", "generate", digits, "--count", "1").out.strip()
    refused = genmill("job", "cancel", training, other, "--keep")
    assert (refused.code, "only a training has weights to keep" in refused.err) == (2, True)
    assert shown(genmill, training)["status"] == "queued"


def test_a_priority_changes_which_job_is_next(genmill, services, digits):
    first, second = (
        genmill("enqueue", "generate", digits, "--count", "1").out.strip() for _ in range(2)
    )
    assert genmill("job", "priority", second, "5").out == f"{second}\n"
    assert genmill("job", "priority", first, "-3").code == 0
    assert (shown(genmill, second)["priority"], shown(genmill, first)["priority"]) == (5, -3)
    with services.database.write() as session:
        (claim,) = shards.claim_due(session, owner="0" * 36, lease_s=60)
    assert claim.job_id == second


def test_the_priority_of_a_batch_is_that_of_its_jobs(genmill, digits, tmp_path):
    line = json.dumps({"kind": "generate", "model": "digits", "count": 1})
    (tmp_path / "lines.jsonl").write_text(f"{line}\n" * 3)
    batch = genmill("enqueue", "batch", str(tmp_path / "lines.jsonl")).out.strip()
    assert genmill("job", "priority", batch, "2").out == f"{batch}\n"
    made = genmill("job", "list", "--batch", batch, "--json").json
    assert [each["priority"] for each in made] == [2, 2, 2]


def test_a_priority_out_of_bounds_or_none_is_refused(genmill, training):
    refused = genmill("job", "priority", training, "1000001")
    assert (refused.code, "-1000000 to 1000000" in refused.err) == (2, True)
    assert genmill("job", "priority", training, "high").code == 2
    genmill("job", "cancel", training)
    late = genmill("job", "priority", training, "1")
    assert (late.code, late.out, "already ended" in late.err) == (0, "", True)


def test_a_note_is_shown_and_an_empty_one_removes_it(genmill, training):
    assert genmill("job", "note", training[:-2], "for the talk").out == f"{training}\n"
    assert shown(genmill, training)["note"] == "for the talk"
    assert "for the talk" in genmill("job", "show", training).out
    assert genmill("job", "list", "--json").json[0]["note"] == "for the talk"
    assert genmill("job", "note", training, "", "--json").json == {"id": training, "note": None}
    assert genmill("job", "note", training, "x" * 1001).code == 2


def test_who_enqueued_a_job_is_recorded_and_found(genmill, services, training):
    assert shown(genmill, training)["owner"] == who()

    def listed(owner):
        return [each["id"] for each in genmill("job", "list", "--owner", owner, "--json").json]

    user = who().partition("@")[0]
    assert listed("me") == listed(user) == listed(who()) == [training]
    assert listed("nobody-else") == []
    genmill("job", "cancel", training)
    retry = genmill("job", "retry", training).out.strip()
    assert shown(genmill, retry)["owner"] == who()


def test_the_jobs_of_a_chain_and_of_its_retry_have_an_owner(genmill, services, pictures):
    words = ("--dataset", pictures, "--name", "m", "--max-steps", "9", "--evaluate")
    first = genmill("enqueue", "train", "gan", *words).out.strip()
    genmill("job", "cancel", first)
    retry = genmill("job", "retry", first).out.strip()
    with services.database.read() as session:
        assert {job.owner for job in chains.whole(session, first)} == {who()}
        assert {job.owner for job in chains.whole(session, retry)} == {who()}


@pytest.mark.parametrize("verb", ["wait", "watch"])
def test_a_wait_that_is_over_says_that_the_job_goes_on(genmill, training, verb):
    over = genmill("job", verb, training, "--timeout", "1s")
    assert over.code == 1
    assert f"after 1s, job {training} is queued; it goes on" in over.err
    assert "genmill job cancel" in over.err
    assert shown(genmill, training)["status"] == "queued"


def test_a_wait_for_several_names_those_that_go_on(genmill, picture_job, training):
    over = genmill("job", "wait", picture_job, training, "--timeout", "1")
    assert over.code == 1
    assert f"after 1s, 1 of 2 jobs have not ended; they go on\njob {training} is queued" in over.err
    assert genmill("job", "wait", picture_job, "--timeout", "1").code == 0


def test_enqueue_waits_no_longer_than_it_is_told(genmill, digits):
    words = ("enqueue", "generate", digits, "--count", "1")
    over = genmill(*words, "--wait", "--timeout", "1s")
    job = over.out.strip()
    assert (over.code, f"job {job} is queued; it goes on" in over.err) == (1, True)
    wrong = genmill(*words, "--timeout", "1s")
    assert (wrong.code, "--wait" in wrong.err) == (2, True)
    assert len(genmill("job", "list", "--json").json) == 1
    scheduled = genmill("schedule", "add", "s", "--cron", "@daily", "--", *words, "--timeout", "1s")
    assert (scheduled.code, "makes no sense in a schedule" in scheduled.err) == (2, True)
