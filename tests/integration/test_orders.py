"""Orders of accepted samples, through real worker processes."""

import json
import os
import signal
import tarfile
import time

import numpy as np
import pytest
import torch

from db import artifacts, evaluations, jobs, models
from db.errors import Refused
from scheduler.datasets.add import add_dataset
from scheduler.results.download import download
from scheduler.results.verify import reproduce, verify
from tests.integration.conftest import TINY
from worker.acceptance import Acceptance
from worker.data.dataset import Shape
from worker.engine.generate import Sample
from worker.evaluation import judge
from worker.media.samples.png import read_pixels
from worker.services.orders import read_selection
from worker.services.samples import find_sample, read_sample
from worker.services.verdicts import AGREEMENT, CONFIDENCE, COPY, PASSED
from worker.shards.sample_rules import PictureLook, Training

SIDE = 28

pytestmark = pytest.mark.xdist_group("orders")


@pytest.fixture
def deployment(shared_deployment):
    return shared_deployment


@pytest.fixture(scope="module")
def judged(shared_deployment):
    """A version of `ordered`, and a briefly trained judge of its data on record."""
    made = shared_deployment
    [job] = made.succeed(made.train(model="ordered").id)
    with made.services.database.read() as session:
        version = models.resolve(session, "ordered")[1].dataset_version_id
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    pixels = random.integers(0, 90, (300, SIDE, SIDE, 1), np.uint8)
    for label in range(3):
        pixels[labels == label, 9 * label : 9 * label + 9] += 120
    network = judge.train(
        pixels, labels, classes=3, device=torch.device("cpu"), tick=lambda _, __: None, steps=40
    )
    path = made.settings.home / "judge.safetensors"
    judge.save(network, path, height=SIDE, width=SIDE)
    blob = made.services.store.put(f"jobs/{job.id}/blobs", path)
    with made.services.database.write() as session:
        evaluations.add_judge(
            session,
            dataset_version_id=version,
            recipe="own-cnn",
            job_id=job.id,
            key=blob.key,
            sha256=blob.sha256,
            metrics={},
        )
    return network


def order(made, count, rules, **how):
    spec = {"model": "ordered", "count": count, "label": "1", "seed": 3, "accept": rules}
    return made.generate(spec.pop("count"), **spec, **how)


def confidences(made, network, count):
    """The judge's probability of the label, of the first samples that an order would make."""
    plain = made.generate(count, model="ordered", label="1", seed=3)
    made.succeed(plain.id)
    pixels = np.stack(
        [
            read_pixels(read_sample(made.services, *find_sample(made.services, plain.id, index)))
            for index in range(count)
        ]
    )
    pixels = pixels.reshape(count, SIDE, SIDE, 1)
    return judge.look(network, pixels, lambda _, __: None).probabilities[:, 1]


@pytest.fixture(scope="module")
def bar(shared_deployment, judged):
    """The confidence that about 70% of an order's samples have, and those of the first 150."""
    found = confidences(shared_deployment, judged, 150)
    return float(np.quantile(found, 0.3)), found


def accepted(made, job_id):
    job = made.job(job_id)
    chosen = sorted(read_selection(made.services, job))
    digests = made.digests(job_id)
    return [(index, digests[index]) for index in chosen]


def test_an_order_has_exactly_the_first_accepted_ones_however_it_is_cut(deployment, bar):
    least, found = bar
    rules = f"confidence>={least}"
    whole, cut = order(deployment, 60, rules), order(deployment, 60, rules, shard_size=7)
    deployment.succeed(whole.id, cut.id)
    expected = [index for index in range(150) if found[index] >= np.float32(least)][:60]
    for job in (whole, cut):
        chosen = accepted(deployment, job.id)
        assert [index for index, _ in chosen] == expected
        assert verify(deployment.services, deployment.job(job.id)).problems == []
    assert accepted(deployment, whole.id) == accepted(deployment, cut.id)


@pytest.fixture(scope="module")
def ordered(shared_deployment, bar):
    """An order of 20, in several shards."""
    job = order(shared_deployment, 20, f"confidence>={bar[0]}", shard_size=16)
    shared_deployment.succeed(job.id)
    return job


@pytest.mark.parametrize("form", ["files", "webdataset", "jsonl"])
def test_a_download_has_the_accepted_ones_and_says_what_was_rejected(
    deployment, ordered, tmp_path, form
):
    job = ordered
    done = download(deployment.services, [deployment.job(job.id)], tmp_path / "out", form=form)
    assert done.samples == 20
    lines = (tmp_path / "out/selection.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in lines]
    assert [each["index"] for each in said] == list(range(len(said)))
    assert sum(each["accepted"] for each in said) == 20
    assert said[-1]["accepted"]
    assert all(
        each["rule"] in {"confidence", "near_duplicates"} for each in said if not each["accepted"]
    )
    if form == "files":
        names = {path.stem for path in (tmp_path / "out").glob("*.png")}
        assert names == {f"{each['index']:09d}" for each in said if each["accepted"]}
    if form == "webdataset":
        members = []
        for path in (tmp_path / "out").glob("*.tar"):
            with tarfile.open(path) as tar:
                members += tar.getnames()
        assert len(members) == 40


def test_an_order_that_cannot_be_met_fails_with_the_counts(deployment, judged):
    job = order(deployment, 8, {"confidence": 1.0, "tries": 2})
    [ended] = deployment.finish(job.id)
    assert ended.status == "failed"
    assert ended.error.startswith("0 of 16 samples were accepted, and 8 are wanted")
    assert "16 by confidence" in ended.error
    again = deployment.retry(job.id)
    [ended] = deployment.finish(again.id)
    assert "0 of 16" in ended.error


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(deployment, bar):
    rules = f"confidence>={bar[0]}, copies_of_training=no"
    calm = order(deployment, 60, rules, shard_size=8)
    deployment.succeed(calm.id)
    killed = order(deployment, 60, rules, shard_size=8)
    for _ in range(3):
        time.sleep(0.3)
        worker = deployment.processes[-1]
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        deployment.worker()
    deployment.succeed(killed.id)
    assert len(accepted(deployment, killed.id)) == 60
    assert accepted(deployment, killed.id) == accepted(deployment, calm.id)


@pytest.mark.slow
def test_an_order_of_a_thousand_whose_worker_is_killed_at_three_points_is_the_same(deployment, bar):
    rules = f"confidence>={bar[0]}"  # which about 70% pass
    calm = order(deployment, 1000, rules, shard_size=250)
    deployment.succeed(calm.id)
    deployment.stop()
    killed = order(deployment, 1000, rules, shard_size=250)
    for point in ("claimed", "put_after", "committed"):
        victim = deployment.worker(failpoint=point)
        deployment.wait(point, lambda victim=victim: victim.poll() is not None)
        assert victim.poll() == -signal.SIGKILL
        assert deployment.job(killed.id).status == "running"
    deployment.worker()
    deployment.succeed(killed.id)
    assert len(accepted(deployment, killed.id)) == 1000
    assert accepted(deployment, killed.id) == accepted(deployment, calm.id)


def test_planted_copies_of_training_are_rejected(judged):
    random = np.random.default_rng(1)
    pixels = random.integers(0, 255, (64, SIDE, SIDE, 1), np.uint8)
    features = judge.look(judged, pixels, lambda _, __: None).features
    rules = Acceptance(copies_of_training=False)
    shape = Shape("image", ("0", "1", "2"), size=SIDE, channels=1)
    look = PictureLook(rules, judged, shape, shape.labels, lambda: Training(features, 1e-3))
    fresh = random.integers(0, 255, (5, SIDE, SIDE, 1), np.uint8)
    planted = [fresh[0], pixels[7], fresh[1], pixels[60], fresh[2]]
    samples = [Sample(i, output, "1", None, None, 64) for i, output in enumerate(planted)]
    codes, values, _ = look(samples)
    assert codes.tolist() == [PASSED, COPY, PASSED, COPY, PASSED]
    assert values[1] == values[3] == 0


def test_a_label_that_the_judge_does_not_know_is_never_seen(judged):
    """As of a model that was tuned on data with some of its classes."""
    pixels = np.random.default_rng(2).integers(0, 255, (3, SIDE, SIDE, 1), np.uint8)
    shape = Shape("image", ("0", "1", "2", "9"), size=SIDE, channels=1)
    samples = [
        Sample(i, each, label, None, None, 64)
        for i, (each, label) in enumerate(zip(pixels, ("9", None, "9"), strict=True))
    ]
    for rule, code in (({"agreement": True}, AGREEMENT), ({"confidence": 0.01}, CONFIDENCE)):
        look = PictureLook(Acceptance(**rule), judged, shape, shape.labels[:3], lambda: None)
        assert look(samples)[0].tolist() == [code, PASSED, code]


def test_texts_are_ordered_by_length_and_novelty(deployment):
    source = deployment.settings.home / "lines.txt"
    source.write_text("The cat sees the mat. The dog has the hat. " * 40)
    add_dataset(deployment.services, "lines", source)
    size = {"layers": 1, "width": 16, "heads": 2, "context": 64}
    train = {"family": "gpt", "model": "liner", "dataset": "lines", "params": size}
    deployment.succeed(deployment.train(**train).id)
    rules = "length>=5, length<=60, near_duplicates=no, copies_of_training=no"
    terms = {"model": "liner", "seed": 3, "params": {"max_tokens": 40}, "accept": rules}
    job = deployment.generate(12, **terms)
    deployment.succeed(job.id)
    chosen = read_selection(deployment.services, deployment.job(job.id))
    assert len(chosen) == 12
    texts = [
        json.loads(read_sample(deployment.services, *find_sample(deployment.services, job.id, i)))
        for i in chosen
    ]
    assert all(5 <= len(text["text"]) <= 60 for text in texts)
    assert len({text["text"] for text in texts}) == 12


def test_rules_that_do_not_fit_are_refused_before_anything_is_stored(deployment, judged):
    for terms, says in (
        ({"model": "tiny", "accept": "near_duplicates=no"}, "not on record"),
        ({"model": "ordered", "accept": "length>=3"}, "no rule for image"),
        ({"model": "ordered", "accept": "near_duplicates=yes"}, "reject nothing"),
        ({"model": "ordered", "accept": {"tries": 3}}, "reject nothing"),
    ):
        with pytest.raises(Refused, match=says):
            deployment.generate(5, **terms)
    deployment.succeed(deployment.train(model="blind", params={**TINY, "conditional": False}).id)
    with pytest.raises(Refused, match="asked for no class that a judge could see"):
        deployment.generate(5, model="blind", accept="agreement=yes")


def test_a_sample_of_an_order_is_made_again(deployment, ordered):
    with deployment.services.database.read() as session:
        assert jobs.get(session, ordered.id).wanted == 20
        kinds = {each.kind for each in artifacts.of_job(session, ordered.id)}
    assert kinds == {"samples", "verdicts", "selection"}
    assert reproduce(deployment.services, deployment.job(ordered.id), 2).equal
