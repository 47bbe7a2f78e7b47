"""The life of a job, from the enqueue to the manifest, through real worker processes."""

import hashlib
import json

import pytest

from db import artifacts, jobs, models
from scheduler.results.verify import read_record
from worker.files import canonical_json


@pytest.fixture
def plant(shared_plant):
    return shared_plant


def test_a_training_makes_a_version_with_files_curves_and_reports(plant) -> None:
    (job,) = plant.succeed(plant.train().id)
    with plant.services.database.read() as session:
        model, version = models.resolve(session, "small")
        stored = artifacts.of_job(session, job.id)
        curves = {point.name for point in jobs.points(session, job.id)}
        dataset = version.dataset_version_id
    assert (model.family, version.number, version.job_id) == ("vae", 1, job.id)
    assert dataset is not None
    assert {"model.safetensors", "config.json"} == set(version.files)
    assert {a.kind for a in stored} >= {"weights", "report"}
    assert {"train/loss", "validation/loss"} <= curves
    for artifact in stored:
        with plant.services.store.open(artifact.key) as file:
            assert hashlib.sha256(file.read()).hexdigest() == artifact.sha256


def test_a_finetuned_version_names_its_parent(plant) -> None:
    plant.succeed(plant.train(model="line").id)
    spec = {"kind": "finetune", "model": "line", "dataset": "digits", "max_steps": 2}
    plant.succeed(plant.enqueue(spec).id)
    with plant.services.database.read() as session:
        _, parent = models.resolve(session, "line:1")
        _, child = models.resolve(session, "line:2")
    assert child.parent_id == parent.id


def test_a_succeeded_job_has_its_samples_and_its_manifest(plant) -> None:
    (job,) = plant.succeed(plant.generate(100, shard_size=32).id)
    with plant.services.database.read() as session:
        manifest = canonical_json(jobs.manifest(session, job.id))
        members = artifacts.members(session, job.id)
    with plant.services.store.open(job.manifest_key) as file:
        assert file.read() == manifest
    assert hashlib.sha256(manifest).hexdigest() == job.manifest_sha256
    assert [member.sample for member in members] == list(range(100))
    assert job.progress["done"] == 100


def test_each_sample_is_one_ranged_read(plant) -> None:
    (job,) = plant.succeed(plant.generate(20, shard_size=7).id)
    with plant.services.database.read() as session:
        member, artifact = artifacts.member(session, job.id, 13)
    stop = member.offset + member.size
    with plant.services.store.open(artifact.key, start=member.offset, stop=stop) as file:
        assert hashlib.sha256(file.read()).hexdigest() == member.sha256


def test_one_shard_or_ten_make_the_same_samples(plant) -> None:
    one = plant.generate(50, seed=3)
    ten = plant.generate(50, seed=3, shard_size=5)
    plant.succeed(one.id, ten.id)
    assert plant.digests(one.id) == plant.digests(ten.id)
    assert len(plant.digests(one.id)) == 50


def test_samples_are_made_from_given_images_and_again(plant) -> None:
    words = {"dataset": "digits", "label": "b"}
    params = {"mode": "inpaint", "mask": [0, 0, 28, 14], "rounds": 2}
    (job,) = plant.succeed(plant.generate(9, **words, params=params).id)
    with plant.services.database.read() as session:
        member, artifact = artifacts.member(session, job.id, 7)
    record = read_record(plant.services, member, artifact)
    assert (record["dataset"], record["label"]) == ("digits:1", "b")
    again = plant.enqueue(job.spec, ranges=[(7, 8)])
    plant.succeed(again.id)
    assert plant.digests(again.id) == [member.sha256]


def test_a_batch_gives_every_line_its_job_and_its_custom_id(plant) -> None:
    lines = [
        json.dumps(
            {"kind": "generate", "model": "tiny", "count": 2, "seed": n, "custom_id": str(n)}
        )
        for n in range(5)
    ]
    batch = plant.enqueue_batch(lines)
    with plant.services.database.read() as session:
        made = jobs.batch_jobs(session, batch.id)
    plant.succeed(*[job.id for job in made])
    assert [job.custom_id for job in made] == ["0", "1", "2", "3", "4"]


def test_a_running_job_is_cancelled_within_seconds(plant) -> None:
    job = plant.generate(1_000_000, shard_size=500_000, params={"micro_batch": 1})
    plant.wait("a running job", lambda: plant.job(job.id).status == "running")
    plant.services.database.transact(lambda session: jobs.cancel(session, job.id))
    after = plant.generate(3)
    plant.succeed(after.id)
    assert plant.job(job.id).status == "cancelled"
    assert plant.digests(job.id) == []


def test_a_job_that_cannot_work_fails_with_its_reason_and_the_next_goes_on(plant) -> None:
    def name_what_is_not_there(session):
        _, version = models.resolve(session, "tiny")
        files = {
            name: file | {"key": "imports/" + "0" * 64} for name, file in version.files.items()
        }
        files["model.safetensors"]["sha256"] = "0" * 64
        models.add_version(
            session,
            name="gone",
            family="vae",
            params=version.params,
            files=files,
            weights_sha256="0" * 64,
            metrics={},
        )

    plant.services.database.transact(name_what_is_not_there)
    (job,) = plant.finish(plant.generate(3, model="gone").id)
    assert job.status == "failed"
    assert "imports/0000" in job.error
    plant.succeed(plant.generate(3).id)


def test_a_retry_holds_what_is_left_and_makes_the_same_samples(plant) -> None:
    with plant.held():  # else a quick worker has made some of the part
        whole = plant.generate(64, shard_size=16, params={"micro_batch": 8})
        part = plant.generate(64, shard_size=16, params={"micro_batch": 8})
        plant.services.database.transact(lambda session: jobs.cancel(session, part.id))
    again = plant.retry(part.id)
    plant.succeed(whole.id, again.id)
    assert plant.digests(again.id) == plant.digests(whole.id)
    assert again.retry_of == part.id
