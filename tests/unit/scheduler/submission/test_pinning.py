"""Which images a generate job may name, and how the name is stored."""

import json

import pytest

from db import datasets, models
from db.errors import NotFound, Refused
from scheduler.submission import enqueue as submission
from worker.services import Services
from worker.settings import Settings
from worker.specs import parse_spec

RECONSTRUCT = {"mode": "reconstruct"}


@pytest.fixture
def services(tmp_path, database_url):
    settings = Settings(
        _env_file=None, home=tmp_path, database_url=database_url, redis_url="redis://127.0.0.1:1/0"
    )
    opened = Services(settings)
    for name, labels, changes in (
        ("pets", ["cat", "dog"], {}),
        ("birds", ["owl"], {}),
        ("bare", [], {}),
        ("large", [], {"size": 64}),
        ("colour", [], {"channels": 3}),
    ):
        add_dataset(opened, name, "image", labels, {"size": 28, "channels": 1} | changes)
    add_dataset(opened, "prose", "text", [], {"size": 0, "channels": 0})
    for name, family, labels in (
        ("petted", "vae", ["cat", "dog"]),
        ("plain", "vae", []),
        ("gan", "gan", []),
    ):
        add_model(opened, name, family, labels)
    yield opened
    opened.close()


def add_dataset(services, name, kind, labels, shape):
    def add(session):
        datasets.add_version(
            session,
            name=name,
            kind=kind,
            manifest_key="datasets/blobs/x",
            manifest_sha256="0" * 64,
            summary={"labels": labels, "shape": shape},
        )

    services.database.transact(add)


def add_model(services, name, family, labels):
    shape = {"labels": labels, "size": 28, "channels": 1}
    config = services.store.put_bytes("imports", json.dumps({"shape": shape}).encode())

    def add(session):
        models.add_version(
            session,
            name=name,
            family=family,
            params={},
            files={"config.json": vars(config)},
            weights_sha256="0" * 64,
            metrics={},
        )

    services.database.transact(add)


def enqueue(services, spec):
    return submission.enqueue(services, parse_spec(spec))


def generate(**words):
    return {"kind": "generate", "model": "plain", "count": 10, "params": RECONSTRUCT, **words}


def test_the_images_that_samples_are_made_from_are_pinned(services):
    job = enqueue(services, generate(dataset="bare"))
    assert job.spec["dataset"] == "bare:1"
    assert enqueue(services, job.spec).spec == job.spec


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"dataset": "large"}, "have size 64, those of plain:1 28"),
        ({"dataset": "colour"}, "have channels 3, those of plain:1 1"),
        ({"dataset": "prose"}, "'vae' takes image datasets; prose:1 is of kind text"),
        ({"dataset": "bare", "model": "gan", "params": {}}, "'gan' takes no images"),
        ({}, "mode=reconstruct needs images; name them with --dataset"),
        ({"dataset": "bare", "params": {}}, "mode=sample takes no images"),
        (
            {"dataset": "bare", "params": {"mode": "inpaint", "mask": [0, 0, 29, 4]}},
            r"mask \[0, 0, 29, 4\] extends beyond the images of 28x28",
        ),
        (
            {"dataset": "bare", "model": "petted"},
            "bare:1 has none; give the label that its images show",
        ),
        ({"dataset": "birds", "model": "petted"}, r"\['owl'\] that it does not know"),
    ],
)
def test_images_that_do_not_fit_are_refused(services, words, complaint):
    with pytest.raises(Refused, match=complaint):
        enqueue(services, generate(**words))


def test_unknown_images_are_not_found(services):
    with pytest.raises(NotFound, match="did you mean 'pets'"):
        enqueue(services, generate(dataset="petz"))


def test_a_label_says_what_unlabelled_images_show(services):
    job = enqueue(services, generate(dataset="bare", model="petted", label="cat"))
    assert (job.spec["dataset"], job.spec["label"]) == ("bare:1", "cat")
    assert enqueue(services, generate(dataset="pets", model="petted")).status == "queued"
    assert enqueue(services, generate(dataset="birds")).status == "queued"


def test_the_shape_of_an_earlier_version_is_read_from_the_store_once(services):
    assert enqueue(services, generate(dataset="bare")).status == "queued"
    for key in list(services.store.keys("imports")):
        services.store.delete(key)
    assert enqueue(services, generate(dataset="bare")).status == "queued"
    with services.database.read() as session:
        assert models.resolve(session, "plain")[1].shape["size"] == 28
    with pytest.raises(NotFound):
        enqueue(services, generate(model="petted", label="cat", params={}))


def test_images_that_a_waiting_job_names_are_not_removed(services):
    job = enqueue(services, generate(dataset="bare"))
    with pytest.raises(Refused, match=job.id):
        services.database.transact(lambda session: datasets.remove(session, "bare"))


def test_a_network_without_labels_is_fine_tuned_on_labelled_images(services):
    def without_labels(session):
        _, version = models.resolve(session, "plain")
        version.params = {"conditional": False}

    services.database.transact(without_labels)
    spec = {"kind": "finetune", "model": "plain", "dataset": "pets"}
    assert enqueue(services, spec).spec["params"]["conditional"] is False
