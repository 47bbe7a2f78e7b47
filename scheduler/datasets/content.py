"""The content of a version on this machine, from the cache or the store."""

from db.tables import DatasetVersion
from worker.cache import Cache
from worker.data.versions import CachedDataset, fetch
from worker.services import Services


def content_of(services: Services, version: DatasetVersion) -> CachedDataset:
    """The version's content, which stays in the cache as long as it is in use."""
    cache = Cache(services.settings.cache, limit_bytes=services.settings.cache_bytes)
    return fetch(services.store, version.manifest_key, version.manifest_sha256, cache)
