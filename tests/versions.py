"""Versions of models and datasets in a store, small ones, for tests of what fetches them."""

import tempfile
from pathlib import Path

import torch

from db.tables import ModelVersion
from worker.data.dataset import Shape
from worker.data.versions import publish
from worker.engine.weights import save
from worker.families import find_family
from worker.ingest.ingest import ingest

PARAMS = {"channels": 4, "hidden": 8, "latent": 2}


def add_version(store, scratch, seed):
    """A version of a tiny network; those of other seeds share its `config.json`."""
    family = find_family("vae")
    folder = scratch / f"v{seed}"
    folder.mkdir()
    torch.manual_seed(seed)
    params = family.params.model_validate(PARAMS)
    save(family.network()(params, Shape("image", size=28, channels=1)), folder, family=family)
    files = {path.name: vars(store.put("blobs", path)) for path in folder.iterdir()}
    return ModelVersion(files=files)


def add_dataset(store, scratch, text):
    """The manifest's blob of a dataset of one text."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = scratch / "text.txt"
        path.write_text(text)
        ingest(path, Path(folder))
        return publish(store, Path(folder))
