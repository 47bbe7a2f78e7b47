"""When a job's marks and their keys are pinned: once, at its submission, also where it waits."""

import json
from pathlib import Path

import pytest

from scheduler.dispatch.chains import move_chains_on

SIGNED = {"name": "own", "marks": ["c2pa"]}


@pytest.fixture
def batch(genmill):
    """Enqueue the lines of a batch; the result."""

    def enqueued(*lines, words=()):
        Path("b.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return genmill("enqueue", "batch", "b.jsonl", *words)

    return enqueued


def line(custom_id, *, after=None, model="digits", **fields):
    spec = {"kind": "generate", "model": model, "count": 1, "custom_id": custom_id, **fields}
    return spec if after is None else spec | {"after": after}


def jobs_of(genmill, batch):
    assert batch.code == 0, batch.err
    found = genmill("job", "list", "--batch", batch.out.strip(), "--json").json
    return {each["custom_id"]: each for each in found}


def marks_of(genmill, job_id):
    return genmill("job", "show", job_id, "--json").json["spec"].get("marks")


def test_a_job_that_waits_has_the_keys_of_its_submission(
    genmill, services, family_tree, batch, commit, monkeypatch
):
    """Whoever queues it later is of another tenant, and the keys were rotated meanwhile."""
    monkeypatch.setenv("GENMILL_TENANT", "acme")
    key = genmill("key", "create", "signing").out.strip()
    made = jobs_of(
        genmill,
        batch(
            line("last", after="then", marks=SIGNED),
            line("first"),
            line("then", after="first", marks=SIGNED),
        ),
    )
    for each in ("then", "last"):
        assert marks_of(genmill, made[each]["id"])["keys"] == {"signing": key}
    assert genmill("key", "rotate", "signing").code == 0
    monkeypatch.delenv("GENMILL_TENANT")
    commit(made["first"]["id"])
    assert move_chains_on(services) == 1
    marks = marks_of(genmill, made["then"]["id"])
    assert (marks["keys"], marks["settings"]["c2pa"]) == (
        {"signing": key},
        {"trained_on": ["pictures:1"]},
    )


def test_a_job_that_waits_fails_if_its_key_is_revoked_meanwhile(
    genmill, services, digits, batch, commit
):
    key = genmill("key", "create", "signing").out.strip()
    made = jobs_of(genmill, batch(line("first"), line("then", after="first", marks=SIGNED)))
    assert genmill("key", "revoke", key, "--reason", "stolen").code == 0
    assert genmill("key", "create", "signing").code == 0
    commit(made["first"]["id"])
    assert move_chains_on(services) == 1
    failed = genmill("job", "show", made["then"]["id"], "--json").json
    assert (failed["status"], f"key {key} was revoked" in failed["error"]) == ("failed", True)
    assert "submit the job again" in failed["error"]


def test_a_job_that_waits_has_the_defaults_of_its_submission(
    genmill, services, digits, batch, commit, monkeypatch
):
    monkeypatch.setenv("GENMILL_MARKS", "house.toml")
    Path("house.toml").write_text('marks = ["iptc"]')
    lines = line("first", marks="none"), line("then", after="first")
    marked = jobs_of(genmill, batch(*lines))
    Path("house.toml").unlink()
    monkeypatch.delenv("GENMILL_MARKS")
    plain = jobs_of(genmill, batch(*lines))
    assert genmill("model", "marks", digits, "cn-gb45438").code == 0
    for made in (marked, plain):
        commit(made["first"]["id"])
    assert move_chains_on(services) == 2
    assert marks_of(genmill, marked["then"]["id"])["name"] == "house"
    assert marks_of(genmill, plain["then"]["id"]) is None


@pytest.mark.parametrize(
    ("marks", "told"),
    [
        (SIGNED, "no signing key; `genmill key create signing`"),
        ({"name": "own", "marks": ["aigc"], "settings": {"aigc": {"producer": 1}}}, "producer"),
    ],
)
def test_marks_that_a_job_cannot_have_are_refused_before_the_training_that_it_waits_for(
    genmill, pictures, batch, marks, told
):
    training = {"kind": "train", "family": "gan", "model": "new", "dataset": pictures}
    lines = training | {"custom_id": "first"}, line("then", after="first", model="new", marks=marks)
    for given in (lines, lines[::-1]):
        refused = batch(*given)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    assert genmill("job", "list", "--json").json == []


def test_a_repeated_batch_is_the_same_after_a_rotation(genmill, digits, batch):
    genmill("key", "create", "signing")
    lines = line("first", marks=SIGNED), line("then", after="first", marks=SIGNED)
    made = batch(*lines, words=("--idempotency-key", "k")).out
    genmill("key", "rotate", "signing")
    assert batch(*lines, words=("--idempotency-key", "k")).out == made
    other = line("first", marks=SIGNED), line("then", after="first")
    assert batch(*other, words=("--idempotency-key", "k")).code == 0  # asks for no marks


def test_a_repeated_batch_is_the_same_after_a_new_version_that_learnt_from_other_data(
    genmill, digits, batch, request
):
    genmill("key", "create", "signing")
    lines = line("first", marks=SIGNED), line("then", after="first", marks=SIGNED)
    made = batch(*lines, words=("--idempotency-key", "k")).out
    request.getfixturevalue("family_tree")
    again = batch(*lines, words=("--idempotency-key", "k"))
    assert again.out == made, again.err


@pytest.mark.parametrize("fields", [{}, {"after": "first"}, {"accept": "length>=2"}])
def test_a_retry_has_the_keys_of_its_job(genmill, prose, batch, fields):
    """Also of one that waits, and of an order."""
    key = genmill("key", "create", "signing").out.strip()
    lines = line("first", model=prose), line("then", model=prose, marks=SIGNED, **fields)
    made = jobs_of(genmill, batch(*lines))
    job_id = made["then"]["id"]
    assert genmill("job", "cancel", job_id).code == 0
    assert genmill("key", "rotate", key).code == 0
    again = genmill("job", "retry", job_id)
    assert again.code == 0, again.err
    assert marks_of(genmill, again.out.strip())["keys"] == {"signing": key}
    genmill("key", "revoke", key, "--reason", "stolen")
    genmill("job", "cancel", again.out.strip())
    refused = genmill("job", "retry", again.out.strip())
    assert (refused.code, f"key {key} was revoked" in refused.err) == (2, True), refused.err


def test_each_run_of_a_schedule_has_the_keys_of_its_moment(genmill, services, digits):
    first = genmill("key", "create", "signing").out.strip()
    Path("b.jsonl").write_text(
        "\n".join(map(json.dumps, (line("a"), line("b", after="a", marks=SIGNED))))
    )
    words = ("schedule", "add", "often", "--cron", "0 3 * * *", "--overlap", "queue", "--")
    assert genmill(*words, "enqueue", "batch", "b.jsonl").code == 0

    def run():
        assert genmill("schedule", "trigger", "often").code == 0
        newest, *_ = genmill("job", "list", "--status", "waiting", "--json").json
        return marks_of(genmill, newest["id"])["keys"]["signing"]

    assert run() == first
    second = genmill("key", "rotate", first).out.strip()
    assert run() == second
