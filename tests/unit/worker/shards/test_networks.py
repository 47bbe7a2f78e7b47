"""Model versions on a machine: fetched once, bounded on disk and in memory."""

import os
import weakref

import pytest
import torch

from db.errors import DigestMismatch, TooLarge
from db.tables import ModelVersion
from tests.families.kit import Recorder, dataset_for, small_training, train_small
from worker.data.dataset import Shape
from worker.engine import memory
from worker.engine.train import train
from worker.engine.weights import save
from worker.families import find_family
from worker.files import digest_of
from worker.networks.version_folder import read_record
from worker.shards.networks import Networks, fetch_version
from worker.store.folder import FolderStore

CPU = torch.device("cpu")
PARAMS = {"channels": 4, "hidden": 8, "latent": 2}


class Counting(FolderStore):
    """Knows what was asked of it, for a file that is trusted is not even fetched."""

    def __init__(self, root):
        super().__init__(root)
        self.fetched = []

    def fetch(self, key, path, *, sha256=None):
        self.fetched.append(path.name)
        super().fetch(key, path, sha256=sha256)


@pytest.fixture
def store(tmp_path):
    return Counting(tmp_path / "store")


@pytest.fixture
def resident(store, tmp_path):
    """Two networks in memory, and weak references to them, the older one first."""
    networks, versions = Networks(CPU, limit_bytes=2**40), []
    for seed in range(2):
        version = add(store, tmp_path, seed)
        folder = fetch_version(store, version, cache=tmp_path / "cache", limit_bytes=2**30)
        versions.append(weakref.ref(networks.get(version, folder).network))
    return networks, versions


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


def test_a_file_that_was_checked_on_its_way_in_is_not_read_again(store, tmp_path) -> None:
    version = add(store, tmp_path, 0)
    folder = fetch_version(store, version, cache=tmp_path / "cache", limit_bytes=2**30)
    assert sorted(store.fetched) == ["config.json", "model.safetensors"]
    fetch_version(store, version, cache=tmp_path / "cache", limit_bytes=2**30)
    assert len(store.fetched) == 2
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    fetch_version(store, version, cache=tmp_path / "cache", limit_bytes=2**30)
    assert store.fetched[2:] == ["model.safetensors"]
    sha256 = version.files["model.safetensors"]["sha256"]
    assert digest_of(folder / "model.safetensors") == sha256


def test_a_damaged_file_of_another_version_is_not_taken_over(store, tmp_path) -> None:
    one, two = (add(store, tmp_path, seed) for seed in range(2))
    folder = fetch_version(store, one, cache=tmp_path / "cache", limit_bytes=2**30)
    config = folder / "config.json"
    config.write_bytes(config.read_bytes()[::-1])
    other = fetch_version(store, two, cache=tmp_path / "cache", limit_bytes=2**30)
    assert digest_of(other / "config.json") == two.files["config.json"]["sha256"]


def test_bytes_that_differ_from_the_record_are_not_used(store, tmp_path) -> None:
    version = add(store, tmp_path, 0)
    version.files["config.json"]["sha256"] = "0" * 64
    with pytest.raises(DigestMismatch):
        fetch_version(store, version, cache=tmp_path / "cache", limit_bytes=1)


def test_networks_stay_in_memory_within_a_limit(store, tmp_path) -> None:
    networks = Networks(CPU, limit_bytes=1)
    first, second = (add(store, tmp_path, seed) for seed in range(2))
    folders = [
        fetch_version(store, version, cache=tmp_path / "cache", limit_bytes=2**30)
        for version in (first, second)
    ]
    loaded = networks.get(first, folders[0])
    assert networks.get(first, folders[0]) is loaded
    networks.get(second, folders[1])
    assert networks.get(first, folders[0]) is not loaded


def test_where_memory_is_short_idle_networks_leave_one_by_one(resident) -> None:
    networks, (older, newer) = resident

    def work():
        if older() is not None:
            raise TooLarge("no room beside the older one")
        return newer() is not None

    assert networks.make_room(work)

    def too_much():
        raise TooLarge("more than there ever is")

    with pytest.raises(TooLarge, match="ever is"):
        networks.make_room(too_much)
    assert newer() is None


def test_a_training_begun_again_with_more_room_is_the_same(resident, tmp_path, monkeypatch) -> None:
    networks, (older, newer) = resident
    family, meminfo = find_family("gpt"), tmp_path / "meminfo"
    data = dataset_for(family, tmp_path / "data")
    plain = train_small(family, data, tmp_path / "plain", max_steps=3)
    again = small_training(family, data, tmp_path / "run", max_steps=3)
    shape = Shape.from_json(read_record(plain.folder)["shape"])
    weights_bytes = memory.network_bytes(family.network(), again.params, shape)
    monkeypatch.setattr(memory, "MEMINFO", meminfo)

    def work():
        # beside the older network this one fits, and a step of its training does not
        free_bytes = 2**40 if older() is None else weights_bytes
        meminfo.write_text(f"MemAvailable: {free_bytes // 1024 + 1} kB\n")
        return train(again, Recorder())

    trained = networks.make_room(work)
    assert [digest_of(path) for path in trained.files] == [digest_of(path) for path in plain.files]
    assert newer() is not None
