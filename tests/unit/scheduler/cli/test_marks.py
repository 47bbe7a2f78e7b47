"""Marks of a job's samples: asked for, made by a worker, counted and shown."""

import json
import threading
from pathlib import Path

import pytest
import torch

from db import jobs
from db.states import JobState
from worker.marks import find_mark
from worker.media import find_medium
from worker.services.finalize import finalize, read_manifest, settle
from worker.shards.attempt import work
from worker.shards.context import WorkerContext
from worker.shared_memory import SharedState

HOUSE = """
name = "house"
marks = ["record", "iptc", "licence", "aigc", "visible_label"]
[licence]
copyright = "© 2026 Example Ltd"
"""


@pytest.fixture
def house(home):
    Path("house.toml").write_text(HOUSE, encoding="utf-8")
    return "house.toml"


@pytest.fixture
def make(genmill, services, loadable_digits):
    """Enqueue samples and make them; the job's id."""

    def made(*words):
        job = genmill("enqueue", "generate", "digits", "--seed", "7", *words)
        assert job.code == 0, job.err
        do(services, job.out.strip())
        return job.out.strip()

    return made


def do(services, job_id):
    """What a worker does with a job."""
    context = WorkerContext(services, torch.device("cpu"))
    with services.database.read() as session:
        made = jobs.shards_of(session, job_id)
    for shard in made:
        work(context, shard.id, owner="boot", shared=SharedState())
    finalize(services, settle(services, [job_id]))


def spec_of(genmill, job):
    return genmill("job", "show", job, "--json").json["spec"]


def test_samples_carry_the_marks_of_a_file_and_the_job_says_what_each_did(genmill, make, house):
    job = make("--count", "5", "--marks", house)
    shown = genmill("job", "show", job, "--json").json
    assert shown["status"] == "succeeded", shown
    done = {each["mark"]: each for each in shown["marks"]}
    assert {name: each["applied"] for name, each in done.items()} == {
        **dict.fromkeys(("aigc", "iptc", "licence", "record"), 5),
        "visible_label": 0,
    }
    [(why, count)] = done["visible_label"]["why"].items()
    assert (count, done["visible_label"]["not_applied"]) == (5, 5)
    assert why.startswith("8x8 pixels have no room")
    assert "MARKS" in genmill("job", "show", job).out
    assert genmill("artifact", "verify", job).code == 0
    assert genmill("artifact", "download", job, "-o", "out").code == 0
    files = sorted(Path("out").glob("**/*.png"))
    assert len(files) == 5
    medium = find_medium("image")
    for number, file in enumerate(files):
        data = file.read_bytes()
        assert medium.read_record(data)["marks"] == "house"
        assert medium.read_record(data)["index"] == number
        told = find_mark("licence").read(data, None, medium)
        assert told.says["Copyright"] == "© 2026 Example Ltd"


def test_the_manifest_has_the_counts_and_follows_from_the_database(make, services, house):
    job = make("--count", "3", "--marks", house)
    with services.database.read() as session:
        found = jobs.get(session, job)
        [artifact] = jobs.manifest(session, job)["artifacts"]
    assert artifact["marks"]["iptc"] == {"applied": 3, "not_applied": {}}
    assert json.loads(read_manifest(services, found))["artifacts"] == [artifact]


def test_the_same_marked_sample_has_the_same_bytes(genmill, make, house):
    first, second = (make("--count", "2", "--marks", house) for _ in range(2))
    digests = [
        genmill("artifact", "list", job, "--json").json[0]["sha256"] for job in (first, second)
    ]
    assert digests[0] == digests[1]
    plain = make("--count", "2")
    assert genmill("job", "show", plain, "--json").json["marks"] == []
    assert "marks" not in spec_of(genmill, plain)


def test_a_sample_whose_mark_does_not_read_back_is_not_committed(genmill, make, house, monkeypatch):
    monkeypatch.setattr("worker.media.image.tag_png", lambda data, tags: data)
    job = make("--count", "2", "--marks", house)
    shown = genmill("job", "show", job, "--json").json
    assert shown["status"] != "succeeded"
    assert "of sample 0 failed: it reads back as absent" in shown["shards"][0]["last_error"]
    assert genmill("artifact", "list", job, "--json").json == []


@pytest.fixture
def busy(services):
    """A worker that does what is queued."""

    def serve():
        while not stop.wait(0.05):
            with services.database.read() as session:
                queued = jobs.listing(session, status=JobState.QUEUED)
            for job in queued:
                do(services, job.id)

    stop = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_a_signed_sample_is_made_again_and_what_its_signature_signs_is_compared(
    genmill, make, house, busy
):
    Path(house).write_text('marks = ["record", "iptc", "c2pa"]')
    refused = genmill("enqueue", "generate", "digits", "--count", "1", "--marks", house)
    assert (refused.code, "`genmill key create signing` makes one" in refused.err) == (4, True)
    key = genmill("key", "create", "signing", "--name", "Example Ltd").out.strip()
    job = genmill("enqueue", "generate", "digits", "--count", "2", "--marks", house, "--wait")
    assert job.code == 0, job.err
    job_id = job.out.strip()
    assert spec_of(genmill, job_id)["marks"]["keys"] == {"signing": key}
    genmill("key", "rotate", key)
    told = genmill("artifact", "reproduce", job_id, "1", "--json")
    assert told.code == 0, told.err
    again = told.json
    assert (again["equal"], again["same_but_signed"], again["differences"]) == (True, True, {})
    assert again["old_sha256"] != again["new_sha256"]
    genmill("key", "revoke", key, "--reason", "stolen")
    refused = genmill("artifact", "reproduce", job_id, "1")
    assert (refused.code, f"key {key} was revoked" in refused.err) == (2, True)


def test_the_spec_pins_the_profile_with_every_setting(genmill, digits, house):
    job = genmill("enqueue", "generate", digits, "--count", "1", "--marks", house)
    marks = spec_of(genmill, job.out.strip())["marks"]
    assert marks["name"] == "house"
    assert marks["settings"]["aigc"] == {"producer": "genmill", "propagator": ""}
    assert marks["keys"] == {}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--marks", "cn-gb4543"), "did you mean 'cn-gb45438'"),
        (("--marks", "gone.toml"), "gone.toml"),
        (("--marks", ""), "the path is empty"),
    ],
)
def test_a_wrong_profile_is_refused_before_anything_is_stored(genmill, digits, words, told):
    refused = genmill("enqueue", "generate", digits, "--count", "1", *words)
    assert (refused.code, told in refused.err) == (2, True), refused.err
    assert genmill("job", "list", "--json").json == []


def test_lines_of_a_batch_name_profiles_or_hold_them(genmill, digits, house):
    asked = ["cn-gb45438", house, {"name": "own", "marks": ["iptc"]}, "none", None]
    spec = {"kind": "generate", "model": digits, "count": 1}
    Path("b.jsonl").write_text("\n".join(json.dumps(spec | {"marks": each}) for each in asked))
    batch = genmill("enqueue", "batch", "b.jsonl").out.strip()
    found = genmill("job", "list", "--batch", batch, "--json").json
    named = [each["spec"].get("marks", {}).get("name") for each in found]
    assert sorted(map(str, named)) == ["None", "None", "cn-gb45438", "house", "own"]
    Path("b.jsonl").write_text(json.dumps(spec | {"marks": {"name": "x", "marks": ["no"]}}))
    assert "line 1: no mark 'no'" in genmill("enqueue", "batch", "b.jsonl").err
    line = {"kind": "generate", "model": "digits", "count": 1}
    profile = {"name": "theirs", "marks": ["iptc"], "keys": {"signing": "key_of_another"}}
    Path("b.jsonl").write_text(json.dumps(line | {"marks": profile}))
    told = genmill("enqueue", "batch", "b.jsonl").err
    assert "line 1: marks.keys: those of tenant 'default' are pinned when" in told


def test_the_installation_has_a_profile_and_a_model_another(genmill, digits, house, monkeypatch):
    def marks_of(*words):
        job = genmill("enqueue", "generate", digits, "--count", "1", *words).out.strip()
        return spec_of(genmill, job).get("marks", {}).get("name")

    assert marks_of() is None
    monkeypatch.setenv("GENMILL_MARKS", "cn-gb45438")
    assert marks_of() == "cn-gb45438"
    assert genmill("model", "marks", digits, house).code == 0
    assert marks_of() == "house"
    Path(house).unlink()
    shown = genmill("model", "marks", digits, "--json").json
    assert (shown["profile"], shown["from"]) == ("house", "the model")
    assert marks_of() == "house"
    assert marks_of("--marks", "none") is None
    assert genmill("model", "marks", digits, "--remove").code == 0
    assert marks_of() == "cn-gb45438"
    monkeypatch.setenv("GENMILL_MARKS", "nonsense")
    refused = genmill("enqueue", "generate", digits, "--count", "1")
    assert (refused.code, "no profile of marks 'nonsense'" in refused.err) == (2, True)
    checked = {each["setting"]: each for each in genmill("config", "check", "--json").json}
    assert not checked["GENMILL_MARKS"]["ok"]


def test_a_job_is_retried_with_its_own_marks_whatever_is_the_default(genmill, digits, monkeypatch):
    job = genmill("enqueue", "generate", digits, "--count", "1").out.strip()
    assert genmill("job", "cancel", job).code == 0
    monkeypatch.setenv("GENMILL_MARKS", "cn-gb45438")
    again = genmill("job", "retry", job).out.strip()
    assert "marks" not in spec_of(genmill, again)


def test_a_repeated_key_is_the_same_request_only_with_the_same_marks(genmill, digits, house):
    words = ("enqueue", "generate", digits, "--count", "1", "--idempotency-key", "k")
    first = genmill(*words, "--marks", house).out
    assert genmill(*words, "--marks", house).out == first
    assert genmill(*words).out == first
    refused = genmill(*words, "--marks", "none")
    assert (refused.code, "differs in marks" in refused.err) == (2, True)


def test_a_schedule_repeats_a_file_by_its_absolute_path(genmill, digits, house):
    words = ("enqueue", "generate", digits, "--count", "1", "--marks", house)
    assert genmill("schedule", "add", "n", "--cron", "0 3 * * *", "--", *words).code == 0
    [found] = genmill("schedule", "list", "--json").json
    assert str(Path(house).absolute()) in found["command"]
    kept = ("enqueue", "generate", digits, "--count", "1", "--marks", "cn-gb45438")
    assert genmill("schedule", "add", "m", "--cron", "0 3 * * *", "--", *kept).code == 0
