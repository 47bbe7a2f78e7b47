"""What shards run with: services, device, cache, networks in memory; and what they result in."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from sqlalchemy.orm import Session

from db import datasets, workers
from db.commits import NewArtifact
from db.errors import NotSupportedHere, Refused
from db.jobs import JobBrief
from db.tables import DatasetVersion, ModelVersion
from worker.cache import Cache, HeldFolder
from worker.data import versions
from worker.data.dataset import LocalDataset
from worker.services import Services
from worker.services.pinned import Pinned, PinnedGeneration, pin_model
from worker.services.prompts import load_spec
from worker.shards.loaded_networks import LoadedNetwork, Networks
from worker.shards.model_files import fetch_version
from worker.specs import Generate

T = TypeVar("T")

# every claim looks at all of them, and jobs may each have settings of their own
KEYS_REMEMBERED = 256
KEPT_FOR_ORDERS = 4  # judges, and training data as they see them


@dataclass(frozen=True)
class ShardResult:
    """What a shard's commit records: stored objects, and further writes.

    `manifest` is that of a job of which it is the only shard and records nothing else: the job
    succeeds with the commit.
    """

    artifacts: list[NewArtifact]
    writes: list[Callable[[Session], object]] = field(default_factory=list)
    manifest: dict[str, Any] | None = None


@dataclass
class WorkerContext:
    """What all shards of one worker process share."""

    services: Services
    device: torch.device
    rates: dict[int, float] = field(default_factory=dict)  # samples a second, by work key
    served: dict[str, int] = field(default_factory=dict)  # the latest turns, by group
    recorded_at: dict[int, float] = field(default_factory=dict)  # when it recorded a rate, by key
    live_workers: int = 1
    fair_at: float = 0.0  # when it last claimed the fairest shard, by the monotonic clock
    loading_s: float = 0.0  # spent on loading networks, which says nothing of their speed
    gave_way: int = 0  # how often in a row it let others claim, for it has not the installation key
    _pinned: dict[int, PinnedGeneration] = field(default_factory=dict)  # by work key

    kept: dict[str, Any] = field(default_factory=dict)  # what orders' shards share, by key

    def keep(self, key: str, value: object) -> None:
        """Keep something for the next shards, and forget the oldest of several."""
        self.kept[key] = value
        while len(self.kept) > KEPT_FOR_ORDERS:
            del self.kept[next(iter(self.kept))]

    def beat_pause_s(self, shortest_s: float) -> float:
        """How long to wait between two heartbeats of one kind."""
        lease_s = self.services.settings.lease_s
        return workers.beat_pause_s(shortest_s, live=self.live_workers, lease_s=lease_s)

    def pinned(self, job: JobBrief, work_key: int | None) -> Pinned:
        """The job's spec with its model's version and settings, which its work key names.

        Raises `NotSupportedHere` if this version of Genmill does not accept the spec.
        """
        try:
            return self._pin(job, work_key)
        except NotSupportedHere:
            raise
        except Refused as error:  # another version has accepted it, at the enqueue
            raise NotSupportedHere(
                f"this worker's Genmill does not accept the job: {error}",
                remedy="upgrade it, or ask again",
            ) from error

    def _pin(self, job: JobBrief, work_key: int | None) -> Pinned:
        spec = load_spec(self.services.store, job.spec)
        known = self._pinned.get(work_key) if work_key is not None else None
        if known is not None and isinstance(spec, Generate):
            return replace(known, spec=spec)
        with self.services.database.read() as session:
            pinned = pin_model(session, spec)
        if work_key is not None and isinstance(pinned, PinnedGeneration):
            remember(self._pinned, work_key, pinned)
        return pinned

    def rows_of(self, work_key: int) -> int:
        """The rows of a forward pass of these shards; 1 if it has run none of them lately."""
        known = self._pinned.get(work_key)
        return known.params.micro_batch if known else 1

    def keys_in_memory(self) -> list[int]:
        """The work keys of those shards whose network is in memory."""
        return [key for key, each in self._pinned.items() if each.version in self.networks]

    @cached_property
    def networks(self) -> Networks:
        """The networks in memory."""
        return Networks(self.device, limit_bytes=self.services.settings.loaded_bytes)

    @cached_property
    def cache(self) -> Cache:
        """The files of datasets and model versions, shared with this machine's other workers."""
        settings = self.services.settings
        return Cache(settings.cache, limit_bytes=settings.cache_bytes)

    def files(self, version: ModelVersion) -> HeldFolder:
        """The folder of a version's files, downloaded unless it is in the cache."""
        return fetch_version(self.services.store, version, self.cache)

    def load(self, version: ModelVersion) -> LoadedNetwork:
        """The version's network, downloaded and read unless it is in memory."""
        began = time.monotonic()
        try:
            held = self.files(version)
            return self.networks.get(version, held.path)
        finally:
            self.loading_s += time.monotonic() - began

    def dataset(self, reference: str) -> tuple[DatasetVersion, LocalDataset]:
        """The dataset version that a pinned reference names, downloaded unless in the cache."""
        with self.services.database.read() as session:
            version = datasets.resolve(session, reference)[1]
        key, sha256 = version.manifest_key, version.manifest_sha256
        return version, versions.fetch(self.services.store, key, sha256, self.cache)


def remember(known: dict[int, T], key: int, value: T) -> None:
    """Note the value of a work key as the newest; forgets the oldest of many."""
    known.pop(key, None)
    known[key] = value
    while len(known) > KEYS_REMEMBERED:
        del known[next(iter(known))]
