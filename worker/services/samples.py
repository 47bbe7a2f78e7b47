"""The samples of jobs: their index stored and read, and the bytes of one sample."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from db import artifacts
from db.commits import NewIndex, blob_prefix
from db.errors import BadInput, DigestMismatch
from db.tables import Artifact, Job, Shard
from worker import media
from worker.media.samples.index import IndexEntry, SampleIndex
from worker.services import Services
from worker.store.base import ObjectStore

INLINE_SAMPLES = 4  # an index of so few is kept in the artifact's row
PAGE = 100


def store_index(store: ObjectStore, job_id: str, index: SampleIndex) -> NewIndex:
    """Store the index of an object's samples unless it is short; flush the store, then record."""
    samples, members_sha256 = index.samples, index.members_sha256
    if len(index) <= INLINE_SAMPLES:
        return NewIndex(samples, members_sha256, data=index.data)
    blob = store.put_bytes(blob_prefix(job_id), index.data, durable=False)
    return NewIndex(samples, members_sha256, sha256=blob.sha256)


def read_index(store: ObjectStore, artifact: Artifact, shard: Shard) -> SampleIndex:
    """The index of a samples artifact, from its row or the store.

    Raises `DigestMismatch`, and `NotFound` or `Unreachable` as the store does.
    """
    data = artifact.index_data
    if data is None:
        data = _fetch(store, str(artifact.index_key), str(artifact.index_sha256))
    try:
        return SampleIndex.decode(data, range(shard.start, shard.stop))
    except BadInput as error:
        raise DigestMismatch(f"artifact {artifact.id}: {error}") from None


def stored_objects(services: Services, job: Job) -> Iterator[tuple[Artifact, Shard | None]]:
    """Yield a job's artifacts in order, those of samples with their shard. Raises `Removed`."""
    with services.database.read() as session:
        artifacts.refuse_removed(session, job.id)
    if job.kind == "generate":  # it commits nothing else
        yield from sample_objects(services, job.id)
        return
    with services.database.read() as session:
        stored = artifacts.of_job(session, job.id)
    yield from ((artifact, None) for artifact in stored)


def sample_objects(services: Services, job_id: str) -> Iterator[tuple[Artifact, Shard]]:
    """Yield a job's samples artifacts with their shards, in order; reads a page at a time."""
    after = -1
    while True:
        with services.database.read() as session:
            page = artifacts.samples_page(session, job_id, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1][1].idx


def entries(services: Services, job_id: str) -> Iterator[IndexEntry]:
    """Yield the entry of every committed sample of a job, in the order of their numbers."""
    for artifact, shard in sample_objects(services, job_id):
        yield from read_index(services.store, artifact, shard)


def find_sample(services: Services, job_id: str, sample: int) -> tuple[Artifact, IndexEntry]:
    """The entry of a job's sample, and the artifact that holds it. Raises `NotFound`."""
    with services.database.read() as session:
        artifact, shard = artifacts.holding(session, job_id, sample)
    return artifact, read_index(services.store, artifact, shard).entry(sample)


def read_record(services: Services, artifact: Artifact, entry: IndexEntry) -> dict[str, Any]:
    """The record inside one sample's bytes."""
    return media.read_record(read_sample(services, artifact, entry))


def read_sample(services: Services, artifact: Artifact, entry: IndexEntry) -> bytes:
    """One sample's bytes, fetched by one ranged read."""
    stop = entry.offset + entry.size
    with services.store.open(artifact.key, start=entry.offset, stop=stop) as file:
        return file.read()


@lru_cache(maxsize=8)
def _fetch(store: ObjectStore, key: str, sha256: str) -> bytes:
    with store.open(key) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DigestMismatch(f"object {key} does not have SHA-256 {sha256}")
    return data
