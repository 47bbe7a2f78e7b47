"""Where a worker process makes things: its services, its device, and what it has loaded."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from sqlalchemy.orm import Session

from db import datasets
from db.commits import NewArtifact
from db.tables import DatasetVersion, ModelVersion
from worker.data import versions
from worker.data.dataset import LocalDataset
from worker.services import Services
from worker.shards.networks import Loaded, Networks, fetch_version


@dataclass(frozen=True)
class Made:
    """What a shard made: stored objects to record, and what else its commit shall record."""

    artifacts: list[NewArtifact]
    also: list[Callable[[Session], object]] = field(default_factory=list)


@dataclass
class Bench:
    """One worker process's means of work."""

    services: Services
    device: torch.device

    @cached_property
    def networks(self) -> Networks:
        """The networks in memory."""
        return Networks(self.device, limit_bytes=self.services.settings.loaded_bytes)

    def files(self, version: ModelVersion) -> Path:
        """The folder of a version's files, fetched where they are not here yet."""
        settings = self.services.settings
        return fetch_version(
            self.services.store, version, cache=settings.cache, limit_bytes=settings.cache_bytes
        )

    def load(self, version: ModelVersion) -> Loaded:
        """The version's network, fetched and read where it is not in memory yet."""
        return self.networks.get(version, self.files(version))

    def dataset(self, reference: str) -> tuple[DatasetVersion, LocalDataset]:
        """The dataset version that a pinned reference names, fetched where it is not here yet."""
        settings = self.services.settings
        with self.services.database.read() as session:
            version = datasets.resolve(session, reference)[1]
        local = versions.fetch(
            self.services.store,
            version.manifest_key,
            version.manifest_sha256,
            cache=settings.cache,
            limit_bytes=settings.cache_bytes,
        )
        return version, local
