"""A train job from claim to version: what its log, its version and the next estimate tell."""

import json

import numpy as np
import pytest
import torch

from db import datasets, jobs, models, progress
from scheduler.submission.enqueue import enqueue
from scheduler.submission.estimates import expected_of
from tests.families.kit import image_dataset
from worker.data import versions
from worker.data.versions import summary
from worker.files import canonical_json, digest_of
from worker.services import Services
from worker.services.finalize import finalize, settle
from worker.settings import Settings
from worker.shards.attempt import work
from worker.shards.context import WorkerContext
from worker.shared_memory import SharedState
from worker.specs import parse_spec

SPEC = {"kind": "train", "family": "vae", "model": "toy", "dataset": "shapes", "seed": 3}
PARAMS = {"channels": 8, "latent": 8, "batch_size": 2, "validate_every": 10}


@pytest.fixture
def services(tmp_path, database_url):
    settings = Settings(
        _env_file=None, home=tmp_path, database_url=database_url, redis_url="redis://127.0.0.1:1/0"
    )
    opened = Services(settings)
    add_shapes(opened, tmp_path / "data")
    yield opened
    opened.close()


def add_shapes(services, folder):
    data = image_dataset(folder)
    np.save(folder / "split.npy", np.repeat(np.array([0, 1], np.uint8), 48))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest |= {"rejected": 0, "balance": [], "steps": []}
    manifest["counts"] = {"train": 48, "validation": 48, "test": 0}
    manifest["objects"] = [
        {"name": path.name, "sha256": digest_of(path), "size": path.stat().st_size}
        for path in sorted(data.folder.glob("*.npy"))
    ]
    (folder / "manifest.json").write_bytes(canonical_json(manifest))
    blob = versions.publish(services.store, folder)
    with services.database.write() as session:
        datasets.add_version(
            session, name="shapes", kind="image", manifest_key=blob.key,
            manifest_sha256=blob.sha256, summary=summary(manifest),
        )  # fmt: skip


def train(services):
    job = enqueue(services, parse_spec(SPEC | {"max_steps": 25, "params": PARAMS}))
    with services.database.read() as session:
        [shard] = jobs.shards_of(session, job.id)
    work(WorkerContext(services, torch.device("cpu")), shard.id, owner="w", shared=SharedState())
    finalize(services, settle(services, [job.id]))
    with services.database.read() as session:
        job = jobs.get(session, job.id)
        log = [line.message for line in jobs.log_lines(session, job.id)]
        return job, log, models.resolve(session, "toy@latest")[1], progress.of(session, [job])


def test_a_training_tells_its_story_and_what_the_next_one_will_take(services) -> None:
    job, log, version, done = train(services)
    assert job.status == "succeeded", job.error
    assert log[0] == ("training vae from nothing on shapes:1 (48 train, 48 validation, 0 test)")
    assert "batch_size=2" in log[1]
    assert log[2] == "budget: 25 steps, seed 3, on cpu in fp32"
    text = "\n".join(log)
    for part in ("step 10: validation loss", "the budget is spent after", "outside the budget: "):
        assert part in text
    assert log[-1].startswith("stored as toy:1, ")
    assert not any("about" in line and "outside the budget" in line for line in log)

    short, fault = version.metrics["warnings"]  # 25 steps teach it nothing
    assert short == (
        "the training was short, of 25 steps and 1 epochs; vae needs about 200 steps and an epoch "
        "at least: expect rough samples, or noise"
    )
    assert {short, fault} <= {*log}
    assert done[job.id]["warnings"] == [short, fault]
    assert "stages" not in done[job.id]
    outside = version.metrics["stage_seconds"]
    assert list(outside) == ["loading", "validating", "measuring speed", "storing"]
    assert all(seconds >= 0 for seconds in outside.values())

    expected = expected_of(services, job)
    assert expected.trainings == 1
    assert expected.outside == outside
    assert expected.epochs == pytest.approx(25 * 2 / 48, abs=0.01)
