"""The life of jobs on an encrypted store, through real worker processes."""

import os
import signal

import pytest

from db import artifacts, models
from scheduler.audit.auditor import Auditor
from scheduler.datasets.add import add_dataset
from tests.integration.conftest import Deployment, add_digits, add_tiny, quick_settings
from worker.services.samples import find_sample, read_record, read_sample
from worker.store.base import SENTINEL, STORE_KEY

MARKER = "The heron in the harbour has a hat. "
FOLDERS = ("jobs", "packs", "models", "imports", "datasets", "prompts")


@pytest.fixture(params=["folder", "s3"])
def deployment(request, tmp_path, database_url, broker_url):
    places = {"store_url": (tmp_path / "store").as_uri()}
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        places = {"store_url": s3.url, "s3_endpoint_url": s3.endpoint_url}
    settings = quick_settings(
        tmp_path, database_url, broker_url, store_encryption="aes-256-gcm", **places
    )
    made = Deployment(settings)
    yield made
    made.stop()


def stored(deployment: Deployment) -> dict[str, bytes]:
    """Every object as it lies in the store."""
    raw, found = deployment.services.store.raw, {}
    for folder in FOLDERS:
        for name in raw.keys(folder):
            with raw.open(name) as file:
                found[name] = file.read()
    return found


@pytest.mark.slow
def test_jobs_live_on_an_encrypted_store(deployment):
    add_digits(deployment)
    add_tiny(deployment)
    source = deployment.settings.home / "words.txt"
    source.write_text(MARKER * 200)
    add_dataset(deployment.services, "words", source)
    worker = deployment.worker()
    size = {"layers": 1, "width": 16, "heads": 2, "context": 64}
    text = {"family": "gpt", "model": "writer", "dataset": "words", "params": size}
    with deployment.held():
        training = deployment.train(**text, max_steps=30)
        deployment.wait("a running job", lambda: deployment.job(training.id).status == "running")
        os.killpg(worker.pid, signal.SIGKILL)  # it goes on from what is in the store
    deployment.worker()
    images = deployment.train(max_steps=8)
    samples = deployment.generate(100, shard_size=32)
    small = [deployment.generate(2, seed=seed).id for seed in range(6)]
    deployment.succeed(training.id, images.id, samples.id, *small)
    prompts = {"model": "writer", "prompts": [{"prompt": MARKER[:20]}] * 3, "count": 3}
    deployment.succeed(deployment.enqueue({"kind": "generate", "seed": 0, **prompts}).id)

    artifact, entry = find_sample(deployment.services, samples.id, 77)
    assert read_record(deployment.services, artifact, entry)["index"] == 77
    assert len(read_sample(deployment.services, artifact, entry)) == entry.size
    with deployment.services.database.read() as session:
        _, version = models.resolve(session, "writer")
        digests = {each.sha256 for each in artifacts.of_job(session, training.id)}
    digests |= {file["sha256"] for file in version.files.values()}

    found = stored(deployment)
    assert {name.partition("/")[0] for name in found} >= {"jobs", "imports", "datasets"}
    for name, data in found.items():
        assert data.startswith(b"GENMILL\x01"), name
        assert MARKER[:20].encode() not in data
        assert name.rpartition("/")[2] not in digests
    raw = deployment.services.store.raw
    assert raw.has(STORE_KEY)
    assert raw.has(SENTINEL)
    assert [str(each) for each in Auditor(deployment.services).violations()] == []
