"""Stages, warnings and expectations, as commands show them."""

from io import StringIO

import pytest
from rich.console import Console

from db import datasets, jobs, models, shards
from db.tables import Job
from scheduler.cli import watching
from scheduler.cli.watching import describe
from scheduler.results.waiting import Watched
from tests.shards import succeed

STAGES = [{"name": "training"}, {"name": "validating", "done": 3, "total": 20, "unit": "batches"}]
PROGRESS = {"done": 120, "total": 500, "unit": "steps", "eta_s": 8.2, "stages": STAGES}
COLLAPSED = "the 100 samples that were looked at hardly differ"


@pytest.fixture
def training(genmill, services, pictures) -> str:
    """A training that runs, and has told how far it is."""
    words = ("enqueue", "train", "gan", "--dataset", pictures, "--name", "m", "--max-seconds", "10")
    job_id = genmill(*words).out.strip()
    services.database.transact(lambda session: report(session, job_id, PROGRESS))
    return job_id


def report(session, job_id: str, told) -> None:
    (shard,) = jobs.shards_of(session, job_id)
    claim = shards.claim(session, shard.id, owner="0" * 36, lease_s=60)
    shards.renew_all(session, claim.owner, {shard.id: shards.Beat(1, 1, told)}, lease_s=60)


def held(session, job_id: str) -> shards.Claim:
    """The claim of the training that runs."""
    (shard,) = jobs.shards_of(session, job_id)
    return shards.Claim(
        shard.id, job_id, 1, "0" * 36, 0, 0, 1,
        kind="train", alone=True, work_key=None, group_id=job_id,
    )  # fmt: skip


def end(session, job_id: str) -> None:
    """Commit the training as a worker does: a version, and a last report with a warning."""
    pinned = jobs.get(session, job_id).spec["params"]
    outside = {"loading": 2.0, "validating": 12.0, "measuring speed": 7.0, "storing": 1.0}
    metrics = {"steps": 100, "seconds": 10.0, "epochs": 0.5, "stage_seconds": outside}
    models.add_version(
        session, name="m", family="gan", params=pinned, files={}, weights_sha256="0" * 64,
        metrics=metrics | {"warnings": [COLLAPSED]}, job_id=job_id,
        dataset_version_id=datasets.resolve(session, "pictures")[1].id,
    )  # fmt: skip
    told = {"done": 500, "total": 500, "unit": "steps", "warnings": [COLLAPSED], "stages": STAGES}
    shards.commit(session, held(session, job_id), [], report=told)
    for each in jobs.complete(session, [job_id]):
        jobs.settle(session, each)
    assert succeed(session, job_id, "k", "0" * 64)


def test_stages_are_shown_by_every_command_that_shows_progress(genmill, training) -> None:
    told = "120/500 steps, training, validating 3/20 batches"
    assert told in genmill("job", "show", training).out
    assert f"{told}, 8s left" in genmill("job", "list").out
    assert genmill("job", "show", training, "--json").json["progress"]["stages"] == STAGES
    assert told in genmill("status").out
    (under_way,) = genmill("status", "--json").json["under_way"]
    assert (under_way["id"], under_way["progress"]["done"]) == (training, 120)


def test_warnings_are_shown_of_the_job_and_of_the_version(genmill, services, training) -> None:
    services.database.transact(lambda session: end(session, training))
    assert f"warnings {COLLAPSED}" in " ".join(genmill("job", "show", training).out.split())
    watched = genmill("job", "watch", training)
    assert (watched.code, f"warning: {COLLAPSED}" in watched.out) == (0, True)
    assert "validating" not in watched.out
    shown = genmill("model", "show", "m").out
    assert COLLAPSED in shown
    assert "stage_seconds" not in shown
    assert genmill("model", "show", "m", "--json").json["metrics"]["warnings"] == [COLLAPSED]


def test_a_training_says_before_it_starts_what_its_budget_leaves_out(
    genmill, services, training, pictures
) -> None:
    words = ("enqueue", "train", "gan", "--dataset", pictures, "--name", "n", "--max-seconds", "10")
    first = genmill(*words).err
    assert "about 10s of one worker in the budget, and more outside of it (loading, val" in first
    services.database.transact(lambda session: end(session, training))
    said = genmill(*words)
    assert said.err.splitlines()[:2] == [
        "expected: about 32s of one worker: 10s in the budget and 22s outside of it "
        "(loading 2.0 s, validating 12 s, measuring speed 7 s, storing 1.0 s), as 1 earlier "
        "training took; about 0.5 epochs",
        "note: the budget holds about 100 steps, 0.5 epochs; gan needs about 200 steps and an "
        "epoch at least: expect rough samples, or noise. "
        "An epoch takes about 20 s of training here",
    ]
    assert len(said.out.split()) == 1
    plan = genmill(*words, "--dry-run", "--json").json
    assert (plan["seconds"], plan["outside"]["validating"], plan["epochs"]) == (32, 12, 0.5)
    text = genmill(*words, "--dry-run").out
    assert "22s outside of it (loading 2.0 s" in text
    assert "expect rough samples" in text
    (check,) = genmill("doctor", "--check", "estimates", "--json").json
    assert check["ok"]


def test_a_single_job_has_a_bar_for_each_stage(monkeypatch, capsys) -> None:
    out = StringIO()
    monkeypatch.setattr(
        "rich.console.Console", lambda **_: Console(file=out, width=100, force_terminal=True)
    )
    job = Job(id="0199c0de-0000-7000-8000-000000000000", kind="train", model="m", status="running")
    with watching._Bars(err=False) as show:
        show([Watched(job, PROGRESS)])
        show([Watched(job, PROGRESS | {"stages": [{"name": "storing"}]})])
        show([Watched(job, PROGRESS | {"stages": (), "warnings": [COLLAPSED]})])
    last = out.getvalue().replace("\r", "")
    for each in ("train m", "  training", "  validating", "  storing", "20/20 batches"):
        assert each in last
    assert COLLAPSED not in last
    assert capsys.readouterr().out == f"warning of job {job.id}: {COLLAPSED}\n"
    assert describe(Watched(job, PROGRESS)) == (
        "running 120/500 steps, training, validating 3/20 batches, 8s left"
    )


def test_why_a_job_waits_is_shown_once_by_every_command_that_shows_progress(
    genmill, services, training
) -> None:
    def give_back(session) -> None:
        shards.release(session, held(session, training), "no store at /mnt: mount it", backoff_s=60)

    services.database.transact(give_back)
    assert "waits: no store at /mnt: mount it" in genmill("job", "list").out
    assert genmill("job", "show", training, "--json").json["progress"]["waits_for"]
    watched = genmill("job", "watch", training, "--timeout", "1")
    assert watched.out.count("waits: no store at /mnt: mount it") == 1
