"""Services with datasets and models to enqueue for, and no broker."""

import json

import pytest

from db import datasets, models
from worker.services import Services
from worker.settings import Settings

NOWHERE = "redis://127.0.0.1:1/0"  # no broker: rows must be safe without one


@pytest.fixture
def services(tmp_path, database_url):
    settings = Settings(
        _env_file=None, home=tmp_path, database_url=database_url, redis_url=NOWHERE, shard_s=10
    )
    opened = Services(settings)
    opened.database.transact(add_datasets)
    opened.database.transact(lambda session: add_models(session, opened.store))
    yield opened
    opened.close()


def add_datasets(session):
    common = {"manifest_key": "datasets/blobs/x", "manifest_sha256": "0" * 64}
    labels = {"labels": ["cat", "dog"]}
    datasets.add_version(session, name="pets", kind="image", summary=labels, **common)
    datasets.add_version(session, name="birds", kind="image", summary={"labels": ["owl"]}, **common)
    datasets.add_version(session, name="prose", kind="text", summary={"labels": []}, **common)


def add_models(session, store):
    for name, family, labels, rate in (
        ("digits", "vae", ["cat", "dog"], 100.0),
        ("plain", "vae", [], 0.5),
        ("imported", "gpt", [], None),
    ):
        add_model(session, store, name, family, labels, rate, "config.json")
    for name, more in (("chatty", "chat_template.jinja"), ("mute", "generation_config.json")):
        add_model(
            session, store, name, "hf", [], None, "config.json", "tokenizer_config.json", more
        )


def add_model(session, store, name, family, labels, rate, *files):
    content = store.put_bytes("imports", json.dumps({"shape": {"labels": labels}}).encode())
    models.add_version(
        session,
        name=name,
        family=family,
        params={"latent": 7},
        files=dict.fromkeys(files, vars(content)),
        weights_sha256="0" * 64,
        metrics={"samples_per_second": rate} if rate else {},
    )
