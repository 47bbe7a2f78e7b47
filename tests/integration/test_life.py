"""The life of a job, from submission to manifest, through real worker processes."""

import hashlib
import json

import pytest

from db import artifacts, batches, jobs, models
from scheduler.datasets.add import add_dataset
from worker.files import canonical_json
from worker.services.samples import entries, find_sample, read_record, read_sample


@pytest.fixture
def deployment(shared_deployment):
    return shared_deployment


def test_a_training_makes_a_version_with_files_curves_and_reports(deployment) -> None:
    (job,) = deployment.succeed(deployment.train().id)
    with deployment.services.database.read() as session:
        model, version = models.resolve(session, "small")
        stored = artifacts.of_job(session, job.id)
        curves = {point.name for point in jobs.points(session, job.id)}
        dataset = version.dataset_version_id
    assert (model.family, version.number, version.job_id) == ("vae", 1, job.id)
    assert dataset is not None
    assert (version.shape["labels"], version.shape["size"]) == (["0", "1", "2"], 28)
    assert {"model.safetensors", "config.json"} == set(version.files)
    assert {a.kind for a in stored} >= {"weights", "report"}
    assert {"train/loss", "validation/loss"} <= curves
    for artifact in stored:
        with deployment.services.store.open(artifact.key) as file:
            assert hashlib.sha256(file.read()).hexdigest() == artifact.sha256


def test_a_finetuned_version_names_its_parent(deployment) -> None:
    deployment.succeed(deployment.train(model="line").id)
    spec = {"kind": "finetune", "model": "line", "dataset": "digits", "max_steps": 2}
    deployment.succeed(deployment.enqueue(spec).id)
    with deployment.services.database.read() as session:
        _, parent = models.resolve(session, "line:1")
        _, child = models.resolve(session, "line:2")
    assert child.parent_id == parent.id


def test_a_succeeded_job_has_its_samples_and_its_manifest(deployment) -> None:
    (job,) = deployment.succeed(deployment.generate(100, shard_size=32).id)
    with deployment.services.database.read() as session:
        manifest = canonical_json(jobs.manifest(session, job.id))
    with deployment.services.store.open(job.manifest_key) as file:
        assert file.read() == manifest
    assert hashlib.sha256(manifest).hexdigest() == job.manifest_sha256
    found = list(entries(deployment.services, job.id))
    assert [entry.sample for entry in found] == list(range(100))
    assert deployment.progress(job.id)["done"] == 100


def test_each_sample_is_one_ranged_read(deployment) -> None:
    (job,) = deployment.succeed(deployment.generate(20, shard_size=7).id)
    artifact, entry = find_sample(deployment.services, job.id, 13)
    data = read_sample(deployment.services, artifact, entry)
    assert hashlib.sha256(data).hexdigest() == entry.sha256


def test_one_shard_or_ten_make_the_same_samples(deployment) -> None:
    one = deployment.generate(50, seed=3)
    ten = deployment.generate(50, seed=3, shard_size=5)
    deployment.succeed(one.id, ten.id)
    assert deployment.digests(one.id) == deployment.digests(ten.id)
    assert len(deployment.digests(one.id)) == 50


def test_shards_of_texts_join_those_that_run_and_make_the_same_samples(deployment) -> None:
    source = deployment.settings.home / "words.txt"
    source.write_text("The cat sees the mat. The dog has the hat. " * 40)
    add_dataset(deployment.services, "words", source)
    size = {"layers": 1, "width": 16, "heads": 2, "context": 64}
    train = {"family": "gpt", "model": "writer", "dataset": "words", "params": size}
    deployment.succeed(deployment.train(**train).id)
    terms = {"model": "writer", "seed": 3, "params": {"micro_batch": 32, "max_tokens": 30}}
    one = deployment.generate(60, **terms)
    deployment.succeed(one.id)
    three = deployment.generate(60, shard_size=20, **terms)
    deployment.succeed(three.id)
    assert deployment.digests(one.id) == deployment.digests(three.id)
    with deployment.services.database.read() as session:
        mine = jobs.shards_of(session, three.id)
    first, second, *_ = sorted(mine, key=lambda shard: shard.started_at)
    assert second.started_at < first.ended_at


def test_samples_made_from_given_images_can_be_made_again(deployment) -> None:
    words = {"dataset": "digits", "label": "b"}
    params = {"mode": "inpaint", "mask": [0, 0, 28, 14], "rounds": 2}
    (job,) = deployment.succeed(deployment.generate(9, **words, params=params).id)
    artifact, entry = find_sample(deployment.services, job.id, 7)
    record = read_record(deployment.services, artifact, entry)
    assert (record["dataset"], record["label"]) == ("digits:1", "b")
    again = deployment.enqueue(job.spec, ranges=[(7, 8)])
    deployment.succeed(again.id)
    assert deployment.digests(again.id) == [entry.sha256]


def test_each_line_of_a_batch_becomes_a_job_with_its_custom_id(deployment) -> None:
    lines = [
        json.dumps(
            {"kind": "generate", "model": "tiny", "count": 2, "seed": n, "custom_id": str(n)}
        )
        for n in range(5)
    ]
    batch = deployment.enqueue_batch(lines)
    with deployment.services.database.read() as session:
        made = batches.jobs_of(session, batch.id)
    deployment.succeed(*[job.id for job in made])
    assert [job.custom_id for job in made] == ["0", "1", "2", "3", "4"]


def test_a_running_job_is_cancelled_within_seconds(deployment) -> None:
    job = deployment.generate(1_000_000, shard_size=500_000, params={"micro_batch": 1})
    deployment.wait("a running job", lambda: deployment.job(job.id).status == "running")
    deployment.services.database.transact(lambda session: jobs.cancel(session, job.id))
    after = deployment.generate(3)
    deployment.succeed(after.id)
    assert deployment.job(job.id).status == "cancelled"
    assert deployment.digests(job.id) == []


def test_a_job_without_its_weights_fails_with_the_reason_and_the_next_succeeds(deployment) -> None:
    def add_version_without_files(session):
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

    deployment.services.database.transact(add_version_without_files)
    (job,) = deployment.finish(deployment.generate(3, model="gone").id)
    assert job.status == "failed"
    assert "imports/0000" in job.error
    deployment.succeed(deployment.generate(3).id)


def test_a_retry_makes_what_is_left_and_the_samples_are_the_same(deployment) -> None:
    with deployment.held():  # else a quick worker has made some of the part
        whole = deployment.generate(64, shard_size=16, params={"micro_batch": 8})
        part = deployment.generate(64, shard_size=16, params={"micro_batch": 8})
        deployment.services.database.transact(lambda session: jobs.cancel(session, part.id))
    again = deployment.retry(part.id)
    deployment.succeed(whole.id, again.id)
    assert deployment.digests(again.id) == deployment.digests(whole.id)
    assert again.retry_of == part.id
