"""One cache on disk: bounded, resumable, and safe between processes."""

import fcntl
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import pytest

from db.errors import BadRecord, Unreachable
from tests.versions import add_dataset, add_version
from worker.cache import Cache
from worker.data.versions import fetch
from worker.files import digest_of
from worker.shards.model_files import fetch_version
from worker.store.folder import FolderStore

ROOM = 1 << 30
SECONDS = 3.0


def write(text: str):
    return lambda folder: (folder / "file").write_text(text)


def kept(cache: Cache) -> set[str]:
    return {path.name for path in cache.root.glob("*/*") if path.is_dir()}


def size_of(root: Path) -> int:
    """Bytes on the disk, linked files once."""
    found = [path.stat() for path in root.rglob("*") if path.is_file()]
    return sum({each.st_ino: each.st_size for each in found}.values())


def test_content_is_downloaded_once(tmp_path):
    cache = Cache(tmp_path, limit_bytes=ROOM)
    cache.hold("things", "a", write("first"))
    held = cache.hold("things", "a", write("second"))
    assert (held.path / "file").read_text() == "first"


def test_a_download_that_failed_goes_on_where_it_stopped(tmp_path):
    cache = Cache(tmp_path, limit_bytes=ROOM)

    def broken(folder):
        (folder / "one").write_text("1")
        raise Unreachable("the store is away")

    with pytest.raises(Unreachable, match="is away"):
        cache.hold("things", "a", broken)
    assert not (tmp_path / "things" / "a").exists()
    held = cache.hold("things", "a", lambda folder: (folder / "two").write_text("2"))
    assert {path.name for path in held.path.iterdir()} == {"one", "two"}


def test_the_longest_unused_make_room_whatever_their_kind(tmp_path):
    cache = Cache(tmp_path, limit_bytes=20)
    for kind, key in (("models", "a"), ("datasets", "b"), ("models", "a"), ("models", "c")):
        cache.hold(kind, key, write("ten bytes."))
        time.sleep(0.01)
    assert kept(cache) == {"a", "c"}


def test_what_is_held_stays_however_little_room_there_is(tmp_path):
    cache = Cache(tmp_path, limit_bytes=0)
    held = cache.hold("things", "a", write("x"))
    cache.hold("things", "b", write("y"))
    assert kept(cache) == {"a", "b"}
    assert (held.path / "file").read_text() == "x"
    del held
    cache.hold("things", "b", write("y"))
    assert kept(cache) == {"b"}


def test_what_was_evicted_is_downloaded_again(tmp_path):
    cache = Cache(tmp_path, limit_bytes=0)
    for key in "aba":
        held = cache.hold("things", key, write(key))
        assert (held.path / "file").read_text() == key


def test_an_abandoned_download_makes_room_too(tmp_path):
    cache = Cache(tmp_path, limit_bytes=5)

    def broken(folder):
        (folder / "large").write_text("ten bytes.")
        raise Unreachable("the store is away")

    with pytest.raises(Unreachable):
        cache.hold("things", "a", broken)
    cache.hold("things", "b", write("x"))
    assert size_of(tmp_path) == 1


def test_a_file_linked_into_two_folders_counts_once(tmp_path):
    cache = Cache(tmp_path, limit_bytes=15)
    cache.hold("things", "a", write("ten bytes."))
    cache.hold("things", "b", lambda part: (part / "file").hardlink_to(part.parent / "a" / "file"))
    cache.hold("things", "c", write("x"))
    assert kept(cache) == {"a", "b", "c"}


def test_a_file_where_a_folder_belongs_is_replaced(tmp_path):
    """A cache made by an earlier version could hold one: it touched a folder just evicted."""
    store = FolderStore(tmp_path / "store")
    version = add_version(store, tmp_path, 0)
    cache = Cache(tmp_path / "cache", limit_bytes=ROOM)
    folder = fetch_version(store, version, cache).path
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.touch()
    held = fetch_version(store, version, cache)
    assert {path.name for path in held.path.iterdir()} == set(version.files)


def test_half_a_folder_of_an_earlier_version_is_completed(tmp_path):
    store = FolderStore(tmp_path / "store")
    version = add_version(store, tmp_path, 0)
    cache = Cache(tmp_path / "cache", limit_bytes=ROOM)
    folder = fetch_version(store, version, cache).path
    (folder / "config.json").rename(folder / ".config.json.part")
    folder.with_suffix(".lock").unlink()
    held = fetch_version(store, version, cache)
    assert digest_of(held.path / "config.json") == version.files["config.json"]["sha256"]


def test_a_version_whose_sizes_on_record_are_wrong_is_not_downloaded_for_ever(tmp_path):
    store = FolderStore(tmp_path / "store")
    version = add_version(store, tmp_path, 0)
    version.files["config.json"]["size"] += 1
    with pytest.raises(BadRecord, match="not as the record says"):
        fetch_version(store, version, Cache(tmp_path / "cache", limit_bytes=ROOM))


def test_folders_without_locks_of_an_earlier_version_are_evicted(tmp_path):
    old = tmp_path / "models" / ("0" * 64)
    old.mkdir(parents=True)
    (old / "model.safetensors").write_text("old")
    Cache(tmp_path, limit_bytes=1).hold("datasets", "a", write("x"))
    assert not old.exists()


def test_a_version_is_not_evicted_between_its_look_up_and_its_use(tmp_path, monkeypatch):
    """Evicted there, its folder used to become a file, for good."""
    store = FolderStore(tmp_path / "store")
    one, two = (add_version(store, tmp_path, seed) for seed in range(2))
    cache = Cache(tmp_path / "cache", limit_bytes=0)
    del two.files["config.json"]  # nothing in common
    os.utime(fetch_version(store, one, cache).path, (0, 0))  # unused for long
    real, used = os.utime, []

    def utime_after_another_came(path, *arguments):
        if not used:
            used.append(path)
            fetch_version(store, two, cache)  # locks know no difference between processes
        real(path, *arguments)

    monkeypatch.setattr(os, "utime", utime_after_another_came)
    held = fetch_version(store, one, cache)
    assert used[0] == held.path
    assert {path.name for path in held.path.iterdir()} == set(one.files)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("worker.cache.PATIENCE_S", 1.5)
    monkeypatch.setattr("worker.cache._LOOK_EVERY", 10)


@pytest.fixture
def other_lock(tmp_path):
    """Another's open lock file of the folder `things/a`."""
    (tmp_path / "things").mkdir()
    lock = os.open(tmp_path / "things" / "a.lock", os.O_RDWR | os.O_CREAT)
    yield lock
    os.close(lock)


def test_a_process_that_is_frozen_while_it_downloads_is_not_waited_for(
    tmp_path, impatient, other_lock
):
    fcntl.flock(other_lock, fcntl.LOCK_EX)
    with pytest.raises(Unreachable, match="gets no further"):
        Cache(tmp_path, limit_bytes=ROOM).hold("things", "a", write("x"))
    fcntl.flock(other_lock, fcntl.LOCK_UN)
    held = Cache(tmp_path, limit_bytes=ROOM).hold("things", "a", write("x"))
    assert (held.path / "file").read_text() == "x"


def test_a_slow_download_of_another_process_is_waited_for(tmp_path, impatient, other_lock):
    fcntl.flock(other_lock, fcntl.LOCK_EX)
    part = tmp_path / "things" / "a.part"
    part.mkdir()

    def download() -> None:
        for number in range(8):
            (part / "file").write_text("x" * number)
            time.sleep(0.5)
        part.rename(tmp_path / "things" / "a")
        fcntl.flock(other_lock, fcntl.LOCK_UN)

    other = threading.Thread(target=download)
    other.start()
    held = Cache(tmp_path, limit_bytes=ROOM).hold("things", "a", write("y"))
    other.join()
    assert (held.path / "file").read_text() == "x" * 7


def test_a_folder_that_somebody_emptied_is_not_waited_for_while_another_reads_it(
    tmp_path, impatient, other_lock
):
    cache = Cache(tmp_path, limit_bytes=ROOM)
    held = cache.hold("things", "a", write("x"))
    (held.path / "file").unlink()
    with pytest.raises(Unreachable, match="gets no further"):
        cache.hold("things", "a", write("x"), is_complete=lambda path: (path / "file").exists())


def _fetch_at_random(folder, datasets, models, cache, seed):
    """Fetch and read for a while; each folder must be whole as long as it is held."""
    store = FolderStore(folder)
    choose = random.Random(seed)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        blob, version = choose.choice(datasets), choose.choice(models)
        dataset = fetch(store, blob.key, blob.sha256, cache)
        held = fetch_version(store, version, cache)
        time.sleep(choose.random() / 200)
        for name, file in version.files.items():
            assert digest_of(held.path / name) == file["sha256"]
        texts = [row["text"] for split in range(3) for row in dataset.documents(split)]
        assert "".join(texts) == f"text {datasets.index(blob)}"
        if choose.random() < 0.5:
            del dataset, held


def test_four_processes_fetch_and_evict_without_error(tmp_path):
    store = FolderStore(tmp_path / "store")
    datasets = [add_dataset(store, tmp_path, f"text {number}") for number in range(4)]
    models = [add_version(store, tmp_path, seed) for seed in range(4)]
    largest = max(sum(file["size"] for file in model.files.values()) for model in models)
    cache = Cache(tmp_path / "cache", limit_bytes=largest + 4000)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.versions"])  # torch is imported once, not four times
    processes = [
        context.Process(target=_fetch_at_random, args=(store.root, datasets, models, cache, seed))
        for seed in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    fetch_version(store, models[0], cache)
    assert size_of(cache.root) <= cache.limit_bytes
    # no half folder is left, under its own name or as a download
    assert not list(cache.root.glob("*/*.part"))
    names = {"manifest.json", "documents.jsonl"}, set(models[0].files)
    folders = [path for path in cache.root.glob("*/*") if path.is_dir()]
    assert folders
    assert all({path.name for path in folder.iterdir()} in names for folder in folders)
