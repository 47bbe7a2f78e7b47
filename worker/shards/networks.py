"""Model versions on this machine: their files in the cache folder, their networks in memory.

Both are bounded, and both are keyed by content, so nothing in them is ever stale.
"""

import hashlib
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from db.errors import TooLarge
from db.tables import ModelVersion
from worker.engine.weights import load
from worker.files import digest_of
from worker.networks.family import Family
from worker.networks.network import Network
from worker.store.base import ObjectStore

RECENT_S = 3600.0  # another process may still be reading files that were asked for since

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A network ready to sample from, in evaluation mode on its device."""

    family: Family
    network: Network
    size_bytes: int  # of its own
    shared: Mapping[str, int] = field(default_factory=dict)  # of what others may use too, by name


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

    def make_room(self, work: Callable[[], T]) -> T:
        """What `work` returns; while it finds memory too short, the network not used for longest
        goes, and it begins again. Its `TooLarge` passes once no network is left.
        """
        while True:
            try:
                return work()
            except TooLarge:
                if not self._loaded:
                    raise
            # out of the handler, for the error holds what the work has made so far
            self._loaded.popitem(last=False)

    def _load(self, folder: Path) -> Loaded:
        family, network = self.make_room(lambda: load(folder, device=self.device))
        size = sum(
            tensor.numel() * tensor.element_size() for tensor in network.state_dict().values()
        )
        return Loaded(family, network, size, network.shared_bytes())

    def _size(self) -> int:
        shared = {name: n for each in self._loaded.values() for name, n in each.shared.items()}
        return sum(loaded.size_bytes for loaded in self._loaded.values()) + sum(shared.values())


def fetch_version(
    store: ObjectStore, version: ModelVersion, *, cache: Path, limit_bytes: int
) -> Path:
    """The folder of a version's files on this machine, fetched where they are not there yet.

    A file has its digest before it has its name, so one of the right size is not read again. Raises
    `NotFound`, `Unreachable` or `DigestMismatch` as the store does.
    """
    folder = cache / "models" / _key(version)
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in version.files.items():
        path, sha256 = folder / name, file["sha256"]
        if not _is_whole(path, file["size"]) and not _linked(path, file["size"], sha256):
            store.fetch(file["key"], path, sha256=sha256)
    folder.touch()
    _evict(folder.parent, keep=folder, limit_bytes=limit_bytes)
    return folder


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _linked(path: Path, size: int, sha256: str) -> bool:
    """Take over a file of another version where it is the same, as adapters share a base.

    One of the same name and size is looked at, so that many versions of a model cost one reading.
    """
    for other in path.parent.parent.glob(f"*/{path.name}"):
        with suppress(OSError):  # it may just have been evicted, or linked by another process
            if other != path and other.stat().st_size == size:
                if same := digest_of(other) == sha256:
                    path.hardlink_to(other)
                return same
    return False


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
