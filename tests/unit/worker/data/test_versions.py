"""Versions in a store, and the cache that machines keep of them."""

import json
from pathlib import Path

import pytest

from db.errors import BadInput, DigestMismatch, NotFound
from tests.versions import add_dataset
from worker.cache import Cache
from worker.data.dataset import LocalDataset
from worker.data.versions import fetch, object_keys, publish, summary
from worker.ingest.ingest import ingest
from worker.store.base import Blob
from worker.store.folder import FolderStore

ROOM = 1 << 30


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def got(store: FolderStore, blob: Blob, cache: Path, limit_bytes: int = ROOM) -> LocalDataset:
    return fetch(store, blob.key, blob.sha256, Cache(cache, limit_bytes=limit_bytes))


def kept(cache: Path) -> set[str]:
    return {each.name for each in (cache / "datasets").iterdir() if each.is_dir()}


def test_what_was_published_comes_back(store, tmp_path, cache):
    dataset = got(store, add_dataset(store, tmp_path, "hello world"), cache)
    assert "".join(row["text"] for split in range(3) for row in dataset.documents(split)) == (
        "hello world"
    )


def test_the_same_data_are_published_once_under_the_same_name(store, tmp_path):
    first = add_dataset(store, tmp_path, "hello world")
    objects = list(store.keys("datasets"))
    assert add_dataset(store, tmp_path, "hello world") == first
    assert list(store.keys("datasets")) == objects
    assert len(objects) == 2  # the documents and the manifest


def test_a_file_changed_since_its_manifest_is_not_add_dataset(store, tmp_path):
    (tmp_path / "text.txt").write_text("hello world")
    ingest(tmp_path / "text.txt", tmp_path / "out")
    (tmp_path / "out" / "documents.jsonl").write_text("")
    with pytest.raises(DigestMismatch, match=r"documents\.jsonl has changed"):
        publish(store, tmp_path / "out")


def test_a_version_in_the_cache_is_not_fetched_again(store, tmp_path, cache):
    blob = add_dataset(store, tmp_path, "hello world")
    got(store, blob, cache)
    for key in list(store.keys("datasets")):
        store.delete(key)
    assert got(store, blob, cache).manifest["kind"] == "text"


def test_a_version_that_is_damaged_in_the_store_is_never_used(store, tmp_path, cache):
    blob = add_dataset(store, tmp_path, "hello world")
    data = next(key for key in store.keys("datasets") if key != blob.key)
    good = (store.root / data).read_bytes()
    (store.root / data).write_bytes(good[:-3] + b"xyz")
    with pytest.raises(DigestMismatch):
        got(store, blob, cache)
    (store.root / data).write_bytes(good)
    assert got(store, blob, cache).manifest["kind"] == "text"


def test_a_version_that_is_not_there_is_not_found(store, cache):
    store.put_bytes("datasets/blobs", b"another")
    with pytest.raises(NotFound):
        fetch(store, "datasets/blobs/x", "0" * 64, Cache(cache, limit_bytes=ROOM))


def test_a_manifest_cannot_name_a_file_outside(store, tmp_path, cache):
    entry = {"name": "../../escaped", "sha256": store.put_bytes("datasets/blobs", b"x").sha256}
    blob = store.put_bytes("datasets/blobs", json.dumps({"objects": [entry]}).encode())
    with pytest.raises(BadInput, match=r"'\.\./\.\./escaped' is not a file"):
        got(store, blob, cache)
    assert not list(tmp_path.rglob("escaped"))


def test_a_version_in_use_stays_however_little_room_there_is(store, tmp_path, cache):
    one, two = (add_dataset(store, tmp_path, text) for text in ("one", "two"))
    held = got(store, one, cache)
    got(store, two, cache, limit_bytes=0)
    assert kept(cache) == {one.sha256, two.sha256}
    assert held.manifest["kind"] == "text"
    del held
    got(store, two, cache, limit_bytes=0)
    assert kept(cache) == {two.sha256}


def test_a_version_names_its_manifest_and_every_object(store, tmp_path):
    blob = add_dataset(store, tmp_path, "hello world")
    assert object_keys(store, blob.key) == set(store.keys("datasets"))


def test_a_summary_says_what_lists_show(tmp_path):
    (tmp_path / "text.txt").write_text("hello world")
    manifest = ingest(tmp_path / "text.txt", tmp_path / "out").manifest
    size = (tmp_path / "out" / "documents.jsonl").stat().st_size
    assert summary(manifest) == {
        "counts": {"train": 1, "validation": 1, "test": 1},
        "labels": [],
        "shape": manifest["shape"],
        "rejected": 0,
        "balance": [],
        "steps": manifest["steps"],
        "captions": False,
        "size_bytes": size,
        "licence": None,
        "source": None,
        "tags": {},
        "augmentations": {},
    }
