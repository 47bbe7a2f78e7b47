"""Networks in memory: those used most recently, within a limit.

They are keyed by the content of their files, so none is ever stale.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from db.errors import TooLarge
from db.tables import ModelVersion
from worker.engine.weights import load
from worker.networks.family import Family
from worker.networks.network import Network
from worker.shards.model_files import content_key

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A network ready to sample from, in evaluation mode on its device."""

    family: Family
    network: Network
    size_bytes: int  # without what is shared
    shared: Mapping[str, int] = field(default_factory=dict)  # bytes shared with others, by name


class Networks:
    """The most recently used networks: as many as fit into `limit_bytes`, and at least one."""

    def __init__(self, device: torch.device, *, limit_bytes: int) -> None:
        self.device = device
        self._limit = limit_bytes
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()

    def get(self, version: ModelVersion, folder: Path) -> Loaded:
        """The version's network, read from its files in `folder` unless it is in memory."""
        key = content_key(version)
        if key not in self._loaded:
            family, network = self.make_room(lambda: load(folder, device=self.device))
            size = sum(each.numel() * each.element_size() for each in network.state_dict().values())
            self._loaded[key] = Loaded(family, network, size, network.shared_bytes())
        self._loaded.move_to_end(key)
        while len(self._loaded) > 1 and self._size() > self._limit:
            self._loaded.popitem(last=False)
        return self._loaded[key]

    def make_room(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, evicting networks as long as it raises `TooLarge`.

        The least recently used one goes first, and `work` starts again after each. Its `TooLarge`
        is raised once no network is left.
        """
        while True:
            try:
                return work()
            except TooLarge:
                if not self._loaded:
                    raise
            # outside the handler: the error's traceback holds what the work has made so far
            self._loaded.popitem(last=False)

    def _size(self) -> int:
        """Bytes of all networks; what several share counts once."""
        shared = {name: n for each in self._loaded.values() for name, n in each.shared.items()}
        return sum(loaded.size_bytes for loaded in self._loaded.values()) + sum(shared.values())
