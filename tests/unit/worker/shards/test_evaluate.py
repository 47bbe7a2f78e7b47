"""Evaluate jobs: one row a version and protocol, one judge a dataset version, equal bytes."""

import json
import shutil
from functools import partial

import pytest
import torch
from sqlalchemy import select

from db import artifacts, datasets, evaluations, jobs, journal, models
from db.errors import NotFound, Refused
from db.tables import Evaluation, Judge
from scheduler.submission.enqueue import enqueue
from tests.families.image_models import save_image_model
from tests.families.kit import image_dataset
from worker.data import versions
from worker.data.versions import summary
from worker.evaluation import judge, usefulness
from worker.files import canonical_json, digest_of
from worker.networks.image_model import read_image_model
from worker.services import Services
from worker.services.finalize import finalize, settle
from worker.settings import Settings
from worker.shards import judges
from worker.shards.attempt import work
from worker.shards.context import WorkerContext
from worker.shared_memory import SharedState
from worker.specs import parse_spec

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def short_trainings(monkeypatch):
    monkeypatch.setattr(judge, "STEPS", 20)
    monkeypatch.setattr(usefulness, "STEPS", 5)


@pytest.fixture
def services(tmp_path, database_url):
    """A dataset and a version that was trained on it."""
    yield from home(tmp_path / "home", database_url)


def home(folder, database_url):
    settings = Settings(_env_file=None, home=folder, database_url=database_url, redis_url=NOWHERE)
    folder.mkdir(parents=True)
    opened = Services(settings)
    data = image_dataset(folder / "data")
    manifest = json.loads((data.folder / "manifest.json").read_text("utf-8"))
    manifest |= {"rejected": 0, "balance": [], "steps": []}
    manifest["objects"] = [
        {"name": path.name, "sha256": digest_of(path), "size": path.stat().st_size}
        for path in sorted(data.folder.glob("*.npy"))
    ]
    (data.folder / "manifest.json").write_bytes(canonical_json(manifest))
    blob = versions.publish(opened.store, data.folder)
    with opened.database.write() as session:
        datasets.add_version(
            session, name="shapes", kind="image", manifest_key=blob.key,
            manifest_sha256=blob.sha256, summary=summary(manifest),
        )  # fmt: skip
    params = {"channels": 8, "latent": 8, "batch_size": 16}
    train = {"kind": "train", "family": "gan", "model": "toy", "dataset": "shapes", "seed": 3}
    assert run(opened, ask(opened, **train, max_steps=4, params=params)) == "succeeded"
    yield opened
    opened.close()


def ask(services, **spec):
    return enqueue(services, parse_spec(spec)).id


def evaluate(services, **given):
    spec = {"kind": "evaluate", "model": "toy", "dataset": "shapes", "split": "validation"}
    job_id = ask(services, **(spec | given))
    assert run(services, job_id) == "succeeded", state(services, job_id)
    return job_id


def run(services, job_id):
    """Answer the job's doorbell in this process; return its state."""
    with services.database.read() as session:
        [shard] = jobs.shards_of(session, job_id)
    work(WorkerContext(services, torch.device("cpu")), shard.id, owner="w", shared=SharedState())
    finalize(services, settle(services, [job_id]))
    return state(services, job_id)[0]


def state(services, job_id):
    with services.database.read() as session:
        job = jobs.get(session, job_id)
        return job.status, job.error


def rows(services, table):
    with services.database.read() as session:
        return list(session.scalars(select(table)))


def reports(services, job_id):
    with services.database.read() as session:
        return {each.name: each for each in artifacts.of_job(session, job_id, "report")}


def test_an_evaluation_is_recorded_with_its_items_and_report(services):
    job_id = evaluate(services, count=20)
    [found] = rows(services, Evaluation)
    assert found.job_id == job_id
    assert found.numbers["kid"]["n"] == 20
    assert found.protocol["judge"].startswith("own-cnn:")
    stored = reports(services, job_id)
    assert {"items.npz", "report.html", "report.png"} <= stored.keys()
    assert (stored["items.npz"].key, stored["items.npz"].sha256) == (
        found.items_key,
        found.items_sha256,
    )
    [found_judge] = rows(services, Judge)
    assert found.protocol["judge"].endswith(found_judge.sha256)
    assert found_judge.metrics["accuracy"] > 0.4


def test_two_evaluations_of_one_protocol_are_one_row(services):
    first = evaluate(services, count=20)
    second = evaluate(services, count=20)
    assert [each.job_id for each in rows(services, Evaluation)] == [first]
    assert reports(services, second) == {}
    with services.database.read() as session:
        lines = [line.message for line in jobs.log_lines(session, second)]
    assert any(first in line for line in lines)
    evaluate(services, count=19)
    assert len(rows(services, Evaluation)) == 2
    assert len(rows(services, Judge)) == 1


def test_the_version_to_compare_with_is_measured_in_the_same_job(services):
    tune = {"kind": "finetune", "model": "toy:1", "dataset": "shapes", "max_steps": 2}
    assert run(services, ask(services, **tune)) == "succeeded"
    job_id = evaluate(services, count=20, against="toy:1")
    names = reports(services, job_id)
    assert {"items.npz", "toy-1-items.npz", "report.html", "toy-1-report.html"} <= names.keys()
    first, second = rows(services, Evaluation)
    assert first.protocol_sha256 == second.protocol_sha256
    assert first.version_id != second.version_id


@pytest.mark.slow
def test_two_homes_give_equal_items(services, tmp_path, sqlite_template):
    shutil.copy(sqlite_template, tmp_path / "other.db")
    others = home(tmp_path / "other", f"sqlite:///{tmp_path / 'other.db'}")
    other = next(others)
    evaluate(services, count=20)
    evaluate(other, count=20)
    [one], [same] = rows(services, Evaluation), rows(other, Evaluation)
    assert one.items_sha256 == same.items_sha256
    assert one.protocol == same.protocol
    assert one.numbers == same.numbers
    other.close()


@pytest.mark.slow
def test_the_first_judge_that_is_recorded_counts(services, monkeypatch):
    """Another worker records its judge while this one still trains."""
    trained = judges.train_judge

    def slow(dataset, path, **given):
        metrics = trained(dataset, path, **given)
        with services.database.write() as session:
            version = datasets.resolve(session, "shapes")[1]
            blob = services.store.put_bytes("jobs/other/blobs", path.read_bytes())
            evaluations.add_judge(
                session, dataset_version_id=version.id, recipe="own-cnn", job_id=first,
                key=blob.key, sha256=blob.sha256, metrics={"accuracy": 0.5},
            )  # fmt: skip
        return metrics

    [first] = [job.id for job in jobs_of(services)]
    monkeypatch.setattr(judges, "train_judge", slow)
    evaluate(services, count=20)
    [only] = rows(services, Judge)
    assert (only.job_id, only.metrics) == (first, {"accuracy": 0.5})
    assert only.sha256 in rows(services, Evaluation)[0].protocol["judge"]


def jobs_of(services):
    from db.job_lists import listing

    with services.database.read() as session:
        return listing(session)


def test_what_evaluations_rest_on_is_no_garbage(services):
    job_id = evaluate(services, count=20)
    with services.database.read() as session:
        used = artifacts.referenced_keys(session, job_id)
    [found], [found_judge] = rows(services, Evaluation), rows(services, Judge)
    assert {found.items_key, found_judge.key} <= used


def judged_by(services, folder):
    """Evaluate the version by a small image model; return how the judge was named."""
    save_image_model(folder)
    named = {"folder": str(folder), "sha256": read_image_model(folder).sha256}
    evaluate(services, count=20, judge=named)
    return named


def test_an_image_model_that_the_user_brings_judges_in_place_of_the_own_one(services, tmp_path):
    named = judged_by(services, tmp_path / "tiny vit")
    [found], [kept] = rows(services, Evaluation), rows(services, Judge)
    assert kept.recipe == f"tiny-vit-{named['sha256'][:12]}"
    assert found.protocol["judge"] == f"{kept.recipe}:{kept.sha256}"
    assert kept.metrics.keys() >= {"accuracy", "kept"}
    assert found.numbers["kid"]["n"] == 20
    with services.database.read() as session:
        told = [line.message for line in journal.log_lines(session, found.job_id)]
    assert any("preprocessor_config.json is missing; assumed: pictures of" in line for line in told)
    with services.database.read() as session:  # orders go on using the dataset's own
        assert evaluations.own_judge(session, found.dataset_version_id) is None


@pytest.mark.slow
def test_the_champion_is_measured_by_the_same_image_model_though_its_folder_is_gone(
    services, tmp_path
):
    shutil.rmtree(judged_by(services, tmp_path / "m")["folder"])
    tune = {"kind": "finetune", "model": "toy:1", "dataset": "shapes", "max_steps": 2}
    assert run(services, ask(services, **tune)) == "succeeded"
    assert run(services, ask(services, kind="promote", model="toy:2", force=True)) == "succeeded"
    run(services, ask(services, kind="promote", model="toy:1"))
    first, second = rows(services, Evaluation)
    assert first.version_id != second.version_id
    assert first.protocol == second.protocol


def test_a_judge_that_is_not_there_or_another_one_is_told(services, tmp_path):
    spec = {"kind": "evaluate", "model": "toy", "dataset": "shapes", "split": "validation"}
    lost = ask(services, **spec, judge=str(tmp_path / "lost"))
    run(services, lost)
    with services.database.read() as session:
        [shard] = jobs.shards_of(session, lost)
        assert shard.status == "queued"  # another worker's machine may have it
        assert "this worker's machine has no" in shard.last_error
    folder = save_image_model(tmp_path / "m")
    changed = ask(services, **spec, judge={"folder": str(folder), "sha256": "0" * 64})
    assert run(services, changed) == "failed"
    assert "is not the folder that it was when the job was submitted" in state(services, changed)[1]


def test_a_cancelled_evaluation_records_nothing(services):
    spec = {"kind": "evaluate", "model": "toy", "dataset": "shapes", "split": "validation"}
    job_id = ask(services, **spec)
    services.database.transact(partial(jobs.cancel, job_id=job_id))
    assert run(services, job_id) == "cancelled"
    assert rows(services, Evaluation) == []


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"split": "test"}, "is empty; use --split validation"),
        ({"count": 33}, "has 32 items, but 33 samples"),
        ({"params": {"truncation": 9}}, "truncation"),
        ({"against": "nobody"}, "nobody"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(services, given, complaint):
    spec = {"kind": "evaluate", "model": "toy", "dataset": "shapes", "split": "validation"}
    with pytest.raises((Refused, NotFound), match=complaint):
        ask(services, **{**spec, **given})


def test_a_lost_judge_fails_the_job_for_good(services):
    evaluate(services, count=20)
    services.store.delete(rows(services, Judge)[0].key)
    spec = {"kind": "evaluate", "model": "toy", "dataset": "shapes", "split": "validation"}
    job_id = ask(services, **spec, count=10)
    assert run(services, job_id) == "failed"
    with services.database.read() as session:
        assert models.get(session, "toy")
