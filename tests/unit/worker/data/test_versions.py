"""Versions in a store, and the cache that machines keep of them."""

import json
import multiprocessing
import tempfile
from pathlib import Path

import pytest

from db.errors import BadInput, DigestMismatch, NotFound
from worker.data.dataset import LocalDataset
from worker.data.versions import fetch, publish, summary
from worker.ingest.ingest import ingest
from worker.store.base import Blob
from worker.store.s3 import FolderStore

ROOM = 1 << 30


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def published(store: FolderStore, tmp_path: Path, text: str) -> Blob:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    (tmp_path / "text.txt").write_text(text)
    ingest(tmp_path / "text.txt", folder)
    return publish(store, folder)


def got(store: FolderStore, blob: Blob, cache: Path, limit_bytes: int = ROOM) -> LocalDataset:
    return fetch(store, blob.key, blob.sha256, cache, limit_bytes=limit_bytes)


def kept(cache: Path) -> set[str]:
    return {each.name for each in (cache / "datasets").iterdir() if each.is_dir()}


def test_what_was_published_comes_back(store, tmp_path, cache):
    dataset = got(store, published(store, tmp_path, "hello world"), cache)
    assert "".join(row["text"] for split in range(3) for row in dataset.documents(split)) == (
        "hello world"
    )


def test_the_same_data_are_published_once_under_the_same_name(store, tmp_path):
    first = published(store, tmp_path, "hello world")
    objects = list(store.keys("datasets"))
    assert published(store, tmp_path, "hello world") == first
    assert list(store.keys("datasets")) == objects
    assert len(objects) == 2  # the documents and the manifest


def test_a_file_changed_since_its_manifest_is_not_published(store, tmp_path):
    (tmp_path / "text.txt").write_text("hello world")
    ingest(tmp_path / "text.txt", tmp_path / "out")
    (tmp_path / "out" / "documents.jsonl").write_text("")
    with pytest.raises(DigestMismatch, match=r"documents\.jsonl was changed"):
        publish(store, tmp_path / "out")


def test_a_version_in_the_cache_is_not_fetched_again(store, tmp_path, cache):
    blob = published(store, tmp_path, "hello world")
    got(store, blob, cache)
    for key in list(store.keys("datasets")):
        store.delete(key)
    assert got(store, blob, cache).manifest["kind"] == "text"


def test_a_version_that_is_damaged_in_the_store_is_never_used(store, tmp_path, cache):
    blob = published(store, tmp_path, "hello world")
    data = next(key for key in store.keys("datasets") if key != blob.key)
    good = (store.root / data).read_bytes()
    (store.root / data).write_bytes(good[:-3] + b"xyz")
    with pytest.raises(DigestMismatch):
        got(store, blob, cache)
    (store.root / data).write_bytes(good)
    assert got(store, blob, cache).manifest["kind"] == "text"


def test_a_version_that_is_not_there_is_not_found(store, cache):
    with pytest.raises(NotFound):
        fetch(store, "datasets/blobs/x", "0" * 64, cache, limit_bytes=ROOM)


def test_a_manifest_cannot_name_a_file_outside(store, tmp_path, cache):
    entry = {"name": "../../escaped", "sha256": store.put_bytes("datasets/blobs", b"x").sha256}
    blob = store.put_bytes("datasets/blobs", json.dumps({"objects": [entry]}).encode())
    with pytest.raises(BadInput, match=r"names '\.\./\.\./escaped'"):
        got(store, blob, cache)
    assert not list(tmp_path.rglob("escaped"))


def test_the_longest_unused_versions_make_room(store, tmp_path, cache):
    blobs = [published(store, tmp_path, text) for text in ("one", "two", "three")]
    for blob in blobs:
        got(store, blob, cache)
    got(store, blobs[0], cache)
    size = sum(each.stat().st_size for each in (cache / "datasets" / blobs[0].sha256).iterdir())
    got(store, blobs[0], cache, limit_bytes=2 * size + 10)
    assert kept(cache) == {blobs[0].sha256, blobs[2].sha256}


def test_a_version_in_use_stays_however_little_room_there_is(store, tmp_path, cache):
    one, two = (published(store, tmp_path, text) for text in ("one", "two"))
    held = got(store, one, cache)
    got(store, two, cache, limit_bytes=0)
    assert kept(cache) == {one.sha256, two.sha256}
    assert held.manifest["kind"] == "text"
    del held
    got(store, two, cache, limit_bytes=0)
    assert kept(cache) == {two.sha256}


def test_a_version_that_was_dropped_is_fetched_again(store, tmp_path, cache):
    one, two = (published(store, tmp_path, text) for text in ("one", "two"))
    got(store, one, cache)
    got(store, two, cache, limit_bytes=0)
    assert one.sha256 not in kept(cache)
    assert got(store, one, cache).manifest["kind"] == "text"


def _fetch_and_read(store: FolderStore, blobs: list[Blob], cache: Path) -> None:
    for _ in range(6):
        for blob in blobs:
            dataset = got(store, blob, cache, limit_bytes=0)
            assert sum(1 for split in range(3) for _ in dataset.documents(split)) == 2


def test_processes_that_share_a_full_cache_never_pull_it_from_under_each_other(
    store, tmp_path, cache
):
    blobs = [published(store, tmp_path, text) for text in ("one", "two", "three")]
    context = multiprocessing.get_context("spawn")
    arguments = [(store, blobs[shift:] + blobs[:shift], cache) for shift in range(3)]
    others = [context.Process(target=_fetch_and_read, args=each) for each in arguments]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]


def test_a_summary_says_what_lists_show(tmp_path):
    (tmp_path / "text.txt").write_text("hello world")
    manifest = ingest(tmp_path / "text.txt", tmp_path / "out").manifest
    size = (tmp_path / "out" / "documents.jsonl").stat().st_size
    assert summary(manifest) == {
        "counts": {"train": 1, "validation": 1, "test": 1},
        "labels": [],
        "shape": manifest["shape"],
        "rejected": 0,
        "captions": False,
        "size_bytes": size,
    }
