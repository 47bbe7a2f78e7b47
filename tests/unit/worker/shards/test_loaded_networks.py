"""Networks in memory: bounded, and evicted where work needs the room."""

import weakref

import pytest
import torch

from db.errors import ShortOfMemory, TooLarge
from tests.families.kit import Recorder, dataset_for, small_training, train_small
from tests.versions import add_version
from worker.cache import Cache
from worker.data.dataset import Shape
from worker.engine import memory
from worker.engine.train import train
from worker.families import find_family
from worker.files import digest_of
from worker.networks.version_folder import read_record
from worker.shards.loaded_networks import Networks
from worker.shards.model_files import fetch_version
from worker.store.folder import FolderStore

CPU = torch.device("cpu")


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


@pytest.fixture
def resident(store, tmp_path):
    """Two networks in memory, and weak references to them, the older one first."""
    networks, versions = Networks(CPU, limit_bytes=2**40), []
    for seed in range(2):
        version = add_version(store, tmp_path, seed)
        held = fetch_version(store, version, Cache(tmp_path / "cache", limit_bytes=2**30))
        versions.append(weakref.ref(networks.get(version, held.path).network))
    return networks, versions


def test_networks_stay_in_memory_within_a_limit(store, tmp_path) -> None:
    networks = Networks(CPU, limit_bytes=1)
    first, second = (add_version(store, tmp_path, seed) for seed in range(2))
    cache = Cache(tmp_path / "cache", limit_bytes=2**30)
    one, two = (fetch_version(store, version, cache).path for version in (first, second))
    loaded = networks.get(first, one)
    assert networks.get(first, one) is loaded
    networks.get(second, two)
    assert networks.get(first, one) is not loaded


def test_where_memory_is_short_idle_networks_leave_one_by_one(resident) -> None:
    networks, (older, newer) = resident

    def work():
        if older() is not None:
            raise ShortOfMemory("no room beside the older one")
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
