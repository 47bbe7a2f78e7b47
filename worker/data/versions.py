"""Dataset versions in the object store, and the copies of them that a machine keeps.

A version is its manifest: canonical JSON that names each object by SHA-256, and is itself stored
under its own. The cache holds versions by that digest; several processes may share it. Locks tell
what is in use: an exclusive one while a version is downloaded or evicted, a shared one while it is
read. They are the kernel's, so a process that dies holds none.
"""

import fcntl
import json
import os
import shutil
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from db.errors import BadInput, DigestMismatch
from worker.data.dataset import CAPTIONS, LocalDataset
from worker.files import disk_errors
from worker.store.base import Blob, ObjectStore

PREFIX = "datasets/blobs"
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT  # lock files stay: removing one would let two hold it
_NAMES = {
    *("images.npy", "sounds.npy", "offsets.npy", "labels.npy", "split.npy"),
    *(CAPTIONS, "documents.jsonl"),
}


class CachedDataset(LocalDataset):
    """A version in the cache that stays there as long as this object lives."""

    def hold(self, lock: int) -> "CachedDataset":
        """Keep file descriptor `lock` open, and with it the lock, until this object is gone."""
        weakref.finalize(self, os.close, lock)
        return self


def canonical(manifest: dict[str, Any]) -> bytes:
    """The bytes whose SHA-256 names a version."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8")


def publish(store: ObjectStore, folder: Path) -> Blob:
    """Store what `ingest` wrote, objects first; returns the manifest's blob, which names all."""
    data = (folder / "manifest.json").read_bytes()
    for entry in json.loads(data)["objects"]:
        blob = store.put(PREFIX, folder / entry["name"])
        if blob.sha256 != entry["sha256"]:
            raise DigestMismatch(f"{folder / entry['name']} was changed since its manifest")
    return store.put_bytes(PREFIX, data)


def summary(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the record keeps of a version, to be listed without reading the store."""
    size = sum(entry["size"] for entry in manifest["objects"])
    kept = ("counts", "labels", "shape", "rejected")
    captioned = any(entry["name"] == CAPTIONS for entry in manifest["objects"])
    return {key: manifest[key] for key in kept} | {"captions": captioned, "size_bytes": size}


def fetch(
    store: ObjectStore, manifest_key: str, manifest_sha256: str, cache: Path, *, limit_bytes: int
) -> LocalDataset:
    """The version on this machine, downloaded and checked where it was not yet.

    Versions not in use are then dropped, the longest unused first, until the cache is within
    `limit_bytes`. Raises `NotFound`, `Unreachable` or `DigestMismatch` as the store does.
    """
    root = cache / "datasets"
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        folder = root / manifest_sha256
        lock = os.open(folder.with_suffix(".lock"), _LOCK_FLAGS, 0o600)
        try:
            _make_present(store, manifest_key, folder, lock)
            os.utime(folder)
            _evict(root, limit_bytes)
        except BaseException:
            os.close(lock)
            raise
        return CachedDataset(folder).hold(lock)


def _make_present(store: ObjectStore, manifest_key: str, folder: Path, lock: int) -> None:
    """Download the version unless it is there; on return `lock` is shared and `folder` is whole."""
    while True:
        fcntl.flock(lock, fcntl.LOCK_SH)  # waits while somebody downloads it, or drops it
        if folder.exists():
            return
        # never wait for the exclusive lock: the one who got it first reads on for hours
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not folder.exists():
                _download(store, manifest_key, folder)
            continue
        time.sleep(0.02)


def _download(store: ObjectStore, manifest_key: str, folder: Path) -> None:
    """Fetch all of a version beside `folder`, then give it its name. Goes on where it stopped."""
    part = folder.with_suffix(".part")
    manifest = part / "manifest.json"
    store.fetch(manifest_key, manifest, sha256=folder.name)
    for entry in json.loads(manifest.read_bytes())["objects"]:
        if entry["name"] not in _NAMES:
            raise BadInput(f"manifest {folder.name} names {entry['name']!r}, no file of a dataset")
        key = f"{PREFIX}/{entry['sha256']}"
        store.fetch(key, part / entry["name"], sha256=entry["sha256"])
    part.rename(folder)


def _evict(root: Path, limit_bytes: int) -> None:
    """Drop versions that nobody reads, the longest unused first, until the rest fit."""
    uses = [(_last_use(each), each, _size(each)) for each in root.iterdir() if each.is_dir()]
    excess = sum(size for _, _, size in uses) - limit_bytes
    for _, folder, size in sorted(uses):
        if excess <= 0:
            return
        if _dropped(folder):
            excess -= size


def _dropped(folder: Path) -> bool:
    """Remove a version, or what is left of a download, unless somebody holds its lock."""
    lock = os.open(folder.with_suffix(".lock"), _LOCK_FLAGS, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # renamed first, so that an eviction cut short leaves no version with files missing
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        if folder.exists():
            folder.rename(part)
            shutil.rmtree(part, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _last_use(folder: Path) -> float:
    with suppress(FileNotFoundError):  # another process may be dropping it
        return folder.stat().st_mtime
    return 0


def _size(folder: Path) -> int:
    with suppress(FileNotFoundError):  # as above
        return sum(each.stat().st_size for each in folder.iterdir())
    return 0
