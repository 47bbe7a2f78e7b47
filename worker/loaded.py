"""Model versions on this machine: their files in the cache folder, their networks in memory.

Both are bounded, and both are keyed by content, so nothing in them is ever stale.
"""

import hashlib
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch

from db.tables import ModelVersion
from worker.engine.weights import load
from worker.families import Family
from worker.families.network import Network
from worker.objects import ObjectStore

RECENT_S = 3600.0  # another process may still be reading files that were asked for since


@dataclass(frozen=True)
class Loaded:
    """A network ready to sample from, in evaluation mode on its device."""

    family: Family
    network: Network
    size_bytes: int


class Networks:
    """The networks that were used last, as many as fit into `limit_bytes`, one at least."""

    def __init__(self, device: torch.device, *, limit_bytes: int) -> None:
        self.device = device
        self._limit = limit_bytes
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()

    def get(self, version: ModelVersion, folder: Path) -> Loaded:
        """The version's network; read from its files in `folder` where it is not in memory."""
        key = _key(version)
        if key not in self._loaded:
            self._loaded[key] = self._load(folder)
        self._loaded.move_to_end(key)
        while len(self._loaded) > 1 and self._size() > self._limit:
            self._loaded.popitem(last=False)
        return self._loaded[key]

    def _load(self, folder: Path) -> Loaded:
        family, network = load(folder, device=self.device)
        size = sum(
            tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()
        )
        return Loaded(family, network, size)

    def _size(self) -> int:
        return sum(loaded.size_bytes for loaded in self._loaded.values())


def fetch_version(
    store: ObjectStore, version: ModelVersion, *, cache: Path, limit_bytes: int
) -> Path:
    """The folder of a version's files on this machine, digests checked, fetched where needed.

    Raises `NotFound`, `Unreachable` or `DigestMismatch` as the store does.
    """
    folder = cache / "models" / _key(version)
    for name, file in version.files.items():
        store.fetch(file["key"], folder / name, sha256=file["sha256"])
    folder.touch()
    _evict(folder.parent, keep=folder, limit_bytes=limit_bytes)
    return folder


def _key(version: ModelVersion) -> str:
    """The digest of the files' names and digests."""
    lines = sorted(f"{name} {file['sha256']}" for name, file in version.files.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _evict(root: Path, *, keep: Path, limit_bytes: int) -> None:
    """Drop the folders that were not used for longest until the rest fit."""
    folders = sorted(root.iterdir(), key=lambda folder: folder.stat().st_mtime)
    sizes = {folder: sum(f.stat().st_size for f in folder.iterdir()) for folder in folders}
    excess = sum(sizes.values()) - limit_bytes
    recent = time.time() - RECENT_S
    for folder in folders:
        if excess > 0 and folder != keep and folder.stat().st_mtime < recent:
            shutil.rmtree(folder, ignore_errors=True)
            excess -= sizes[folder]
