"""Dataset versions in the object store and in this machine's cache.

A version is its manifest: canonical JSON that names each object by SHA-256, and is itself stored
under its own.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import BadInput, DigestMismatch
from worker.cache import Cache, HeldFolder
from worker.data.dataset import CAPTIONS, DOCUMENTS, LocalDataset
from worker.files import inside
from worker.store.base import Blob, ObjectStore

PREFIX = "datasets/blobs"
_NAMES = {
    *("images.npy", "sounds.npy", "offsets.npy", "labels.npy", "split.npy"),
    *(CAPTIONS, DOCUMENTS),
}


@dataclass(frozen=True)
class CachedDataset(LocalDataset):
    """A version in the cache that stays there as long as this object lives."""

    held: HeldFolder


def publish(store: ObjectStore, folder: Path) -> Blob:
    """Store what `ingest` wrote; return the blob of the manifest, which is stored last."""
    data = (folder / "manifest.json").read_bytes()
    for entry in json.loads(data)["objects"]:
        blob = store.put(PREFIX, folder / entry["name"])
        if blob.sha256 != entry["sha256"]:
            raise DigestMismatch(f"{folder / entry['name']} has changed since its manifest")
    return store.put_bytes(PREFIX, data)


def summary(manifest: dict[str, Any]) -> dict[str, Any]:
    """The part of a manifest that the database keeps, so that listings do not read the store."""
    size = sum(entry["size"] for entry in manifest["objects"])
    kept = ("counts", "labels", "shape", "rejected", "balance", "steps")
    captioned = any(entry["name"] == CAPTIONS for entry in manifest["objects"])
    said = {
        "licence": manifest.get("licence"),
        "source": manifest.get("source", {}).get("stated"),
        "tags": manifest.get("tags", {}),
        "augmentations": manifest.get("augmentations", {}),
    }
    sizes = {"captions": captioned, "size_bytes": size}
    return {key: manifest[key] for key in kept} | sizes | said


def object_keys(store: ObjectStore, manifest_key: str) -> set[str]:
    """The keys of all objects of a version, its manifest included.

    Raises `DigestMismatch` if the manifest is damaged.
    """
    with store.open(manifest_key) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != manifest_key.rpartition("/")[2]:
        raise DigestMismatch(f"manifest {manifest_key} is damaged: its SHA-256 is not its name")
    return {manifest_key, *_objects(data, manifest_key).values()}


def fetch(
    store: ObjectStore, manifest_key: str, manifest_sha256: str, cache: Cache
) -> CachedDataset:
    """The version on this machine, downloaded and checked unless the cache has it.

    Raises `NotFound`, `Unreachable` or `DigestMismatch` as the store does, and `BadInput` for a
    manifest that names what no dataset has.
    """

    def download(folder: Path) -> None:
        manifest = folder / "manifest.json"
        store.fetch(manifest_key, manifest, sha256=manifest_sha256)
        for name, key in _objects(manifest.read_bytes(), manifest_sha256).items():
            if name not in _NAMES:
                raise BadInput(f"manifest {manifest_sha256}: {name!r} is not a file of a dataset")
            store.fetch(key, inside(folder, name), sha256=key.rpartition("/")[2])

    held = cache.hold("datasets", manifest_sha256, download)
    return CachedDataset(held.path, held)


def _objects(manifest: bytes, name: str) -> dict[str, str]:
    """The keys of a manifest's objects, by their file names. Raises `BadInput`."""
    try:
        entries = json.loads(manifest)["objects"]
        return {entry["name"]: f"{PREFIX}/{entry['sha256']}" for entry in entries}
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"manifest {name} is not that of a dataset") from None
