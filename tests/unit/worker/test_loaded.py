"""Model versions on a machine: fetched once, bounded on disk and in memory."""

import os

import pytest
import torch

from db.errors import DigestMismatch
from db.tables import ModelVersion
from worker.data.feed import Shape
from worker.engine.weights import save
from worker.families import find_family
from worker.files import digest_of
from worker.folder_store import FolderStore
from worker.loaded import Networks, fetch_version

PARAMS = {"channels": 4, "hidden": 8, "latent": 2}


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


def add(store, tmp_path, seed):
    """A version of a tiny network, its files in the store."""
    family = find_family("vae")
    folder = tmp_path / f"v{seed}"
    folder.mkdir()
    torch.manual_seed(seed)
    params = family.params.model_validate(PARAMS)
    save(family.network()(params, Shape("image", size=28, channels=1)), folder, family=family)
    files = {path.name: vars(store.put("blobs", path)) for path in folder.iterdir()}
    return ModelVersion(files=files)


def test_a_version_is_fetched_whole_and_the_oldest_makes_room(store, tmp_path) -> None:
    cache = tmp_path / "cache"
    versions = [add(store, tmp_path, seed) for seed in range(3)]
    folders = []
    for version in versions:
        folders.append(fetch_version(store, version, cache=cache, limit_bytes=1))
        os.utime(folders[-1], (0, len(folders)))  # long ago
    assert {path.name for path in folders[2].iterdir()} == {"model.safetensors", "config.json"}
    again = fetch_version(store, versions[0], cache=cache, limit_bytes=1)
    assert [folder.exists() for folder in folders] == [True, False, False]
    assert again == folders[0]


def test_what_two_versions_share_lies_on_the_disk_once(store, tmp_path) -> None:
    versions = [add(store, tmp_path, seed) for seed in range(2)]
    one, two = (
        fetch_version(store, version, cache=tmp_path / "cache", limit_bytes=2**30)
        for version in versions
    )
    assert (one / "config.json").samefile(two / "config.json")
    for version, folder in zip(versions, (one, two), strict=True):
        sha256 = version.files["model.safetensors"]["sha256"]  # of other bytes, as many
        assert digest_of(folder / "model.safetensors") == sha256


def test_bytes_that_differ_from_the_record_are_not_used(store, tmp_path) -> None:
    version = add(store, tmp_path, 0)
    version.files["config.json"]["sha256"] = "0" * 64
    with pytest.raises(DigestMismatch):
        fetch_version(store, version, cache=tmp_path / "cache", limit_bytes=1)


def test_networks_stay_in_memory_within_a_limit(store, tmp_path) -> None:
    networks = Networks(torch.device("cpu"), limit_bytes=1)
    first, second = (add(store, tmp_path, seed) for seed in range(2))
    folders = [
        fetch_version(store, version, cache=tmp_path / "cache", limit_bytes=2**30)
        for version in (first, second)
    ]
    loaded = networks.get(first, folders[0])
    assert networks.get(first, folders[0]) is loaded
    networks.get(second, folders[1])
    assert networks.get(first, folders[0]) is not loaded
