"""What a worker process works with: services, device, cache and the networks in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from sqlalchemy.orm import Session

from db import datasets
from db.commits import NewArtifact
from db.tables import DatasetVersion, ModelVersion
from worker.cache import Cache, HeldFolder
from worker.data import versions
from worker.data.dataset import LocalDataset
from worker.services import Services
from worker.shards.model_files import fetch_version
from worker.shards.networks import Loaded, Networks


@dataclass(frozen=True)
class Made:
    """What a shard made: stored objects to record, and further steps of its commit."""

    artifacts: list[NewArtifact]
    also: list[Callable[[Session], object]] = field(default_factory=list)


@dataclass
class WorkerContext:
    """What one worker process works with."""

    services: Services
    device: torch.device

    @cached_property
    def networks(self) -> Networks:
        """The networks in memory."""
        return Networks(self.device, limit_bytes=self.services.settings.loaded_bytes)

    @cached_property
    def cache(self) -> Cache:
        """Files of datasets and model versions, shared with this machine's other workers."""
        settings = self.services.settings
        return Cache(settings.cache, limit_bytes=settings.cache_bytes)

    def files(self, version: ModelVersion) -> HeldFolder:
        """The folder of a version's files, fetched unless it is in the cache."""
        return fetch_version(self.services.store, version, self.cache)

    def load(self, version: ModelVersion) -> Loaded:
        """The version's network, fetched and read unless it is in memory."""
        held = self.files(version)
        return self.networks.get(version, held.path)

    def dataset(self, reference: str) -> tuple[DatasetVersion, LocalDataset]:
        """The dataset version that a pinned reference names, fetched unless it is in the cache."""
        with self.services.database.read() as session:
            version = datasets.resolve(session, reference)[1]
        key, sha256 = version.manifest_key, version.manifest_sha256
        return version, versions.fetch(self.services.store, key, sha256, self.cache)
