"""A model version's files on a machine: fetched once, checked, shared between versions."""

import pytest

from db.errors import DigestMismatch
from tests.versions import add_version
from worker.cache import Cache
from worker.files import digest_of
from worker.shards.model_files import fetch_version
from worker.store.folder import FolderStore


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


def fetched(store, version, tmp_path):
    return fetch_version(store, version, Cache(tmp_path / "cache", limit_bytes=2**30)).path


def test_a_version_is_fetched_whole_and_the_oldest_makes_room(store, tmp_path) -> None:
    cache = Cache(tmp_path / "cache", limit_bytes=1)
    versions = [add_version(store, tmp_path, seed) for seed in range(3)]
    folders = [fetch_version(store, version, cache).path for version in versions]
    assert [folder.exists() for folder in folders] == [False, False, True]
    assert {path.name for path in folders[2].iterdir()} == {"model.safetensors", "config.json"}
    assert fetch_version(store, versions[0], cache).path == folders[0]
    assert [folder.exists() for folder in folders] == [True, False, False]


def test_what_two_versions_share_lies_on_the_disk_once(store, tmp_path) -> None:
    versions = [add_version(store, tmp_path, seed) for seed in range(2)]
    one, two = (fetched(store, version, tmp_path) for version in versions)
    assert (one / "config.json").samefile(two / "config.json")
    for version, folder in zip(versions, (one, two), strict=True):
        sha256 = version.files["model.safetensors"]["sha256"]  # of other bytes, as many
        assert digest_of(folder / "model.safetensors") == sha256


def test_a_file_that_was_checked_on_its_way_in_is_not_read_again(store, tmp_path) -> None:
    version = add_version(store, tmp_path, 0)
    folder = fetched(store, version, tmp_path)
    assert sorted(store.fetched) == ["config.json", "model.safetensors"]
    fetched(store, version, tmp_path)
    assert len(store.fetched) == 2
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    fetched(store, version, tmp_path)
    assert store.fetched[2:] == ["model.safetensors"]
    sha256 = version.files["model.safetensors"]["sha256"]
    assert digest_of(folder / "model.safetensors") == sha256


def test_a_damaged_file_of_another_version_is_not_taken_over(store, tmp_path) -> None:
    one, two = (add_version(store, tmp_path, seed) for seed in range(2))
    folder = fetched(store, one, tmp_path)
    config = folder / "config.json"
    config.write_bytes(config.read_bytes()[::-1])
    other = fetched(store, two, tmp_path)
    assert digest_of(other / "config.json") == two.files["config.json"]["sha256"]


def test_bytes_that_differ_from_the_record_are_not_used(store, tmp_path) -> None:
    version = add_version(store, tmp_path, 0)
    version.files["config.json"]["sha256"] = "0" * 64
    with pytest.raises(DigestMismatch):
        fetched(store, version, tmp_path)
