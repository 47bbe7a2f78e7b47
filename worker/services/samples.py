"""The samples of jobs: their index stored and read, and the bytes of one sample."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from db import artifacts
from db.commits import NewIndex, Range, blob_prefix
from db.errors import BadInput, DigestMismatch
from db.tables import Artifact, Job, Shard
from worker import media
from worker.files import digest_of, durable_rename, open_no_link
from worker.media.samples.index import ENTRY_BYTES, IndexEntry, SampleIndex
from worker.services import Services
from worker.store.base import ObjectStore, OnBytes, ignore_bytes

INLINE_SAMPLES = 4  # an index of so few is kept in the artifact's row
PAGE = 100


def store_index(store: ObjectStore, job_id: str, index: SampleIndex) -> NewIndex:
    """Store the index of an object's samples unless it is short; flush the store, then record."""
    new = describe_index(index)
    if new.sha256:
        store.put_bytes(blob_prefix(job_id), index.data, durable=False)
    return new


def describe_index(index: SampleIndex) -> NewIndex:
    """What the record says of an index, which it holds itself if it is short."""
    samples, members_sha256 = index.samples, index.members_sha256
    if len(index) <= INLINE_SAMPLES:
        return NewIndex(samples, members_sha256, data=index.data)
    return NewIndex(samples, members_sha256, sha256=hashlib.sha256(index.data).hexdigest())


def read_index(services: Services, artifact: Artifact, shard: Shard) -> SampleIndex:
    """The index of a samples artifact, from its row or the store.

    Raises `DigestMismatch`, and `NotFound` or `Unreachable` as the store does.
    """
    samples = range(shard.start, shard.stop)
    data = artifact.index_data
    if data is None and artifact.packed is not None:
        data = _packed_index(services, artifact, len(samples))
    elif data is None:
        data = _fetch(services.store, str(artifact.index_key), str(artifact.index_sha256))
    try:
        return SampleIndex.decode(data, samples)
    except BadInput as error:
        raise DigestMismatch(f"artifact {artifact.id}: {error}") from None


@contextmanager
def open_artifact(services: Services, artifact: Artifact) -> Iterator[BinaryIO]:
    """A stream of an artifact's bytes, whatever their digest. Raises as the store does."""
    if artifact.packed is not None:
        yield BytesIO(services.packs.read(artifact.packed))
        return
    with services.store.open(artifact.key) as file:
        yield file


def fetch_artifact(
    services: Services, artifact: Artifact, path: Path, *, on_bytes: OnBytes = ignore_bytes
) -> None:
    """Download an artifact to `path`, whole or not at all, unless it is there.

    Raises `DigestMismatch`, and `NotFound` or `Unreachable` as the store does.
    """
    if artifact.packed is None:
        services.store.fetch(artifact.key, path, sha256=artifact.sha256, on_bytes=on_bytes)
    elif not path.is_file() or digest_of(path) != artifact.sha256:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        with open_no_link(temporary, "wb") as file:
            file.write(read_packed(services, artifact, artifact.packed))
        durable_rename(temporary, path)


def own_object(services: Services, artifact: Artifact) -> str:
    """The key of an object that holds this artifact alone; one in a pack is copied out of it.

    Raises as `fetch_artifact`.
    """
    if artifact.packed is not None:
        data = read_packed(services, artifact, artifact.packed)
        services.store.put_bytes(blob_prefix(artifact.job_id), data)
    return artifact.own_key


def read_packed(services: Services, artifact: Artifact, place: Range) -> bytes:
    """All bytes of an artifact that lies in a pack. Raises as `fetch_artifact`."""
    data = services.packs.read(place)
    require_digest(f"artifact {artifact.id} in object {place.key}", data, artifact.sha256)
    return data


def stored_objects(services: Services, job: Job) -> Iterator[tuple[Artifact, Shard | None]]:
    """Yield a job's artifacts in order, those of samples with their shard. Raises `Removed`."""
    with services.database.read() as session:
        artifacts.refuse_removed(session, job.id)
        others = artifacts.of_job(session, job.id, without="samples")
    yield from sample_objects(services, job.id)
    yield from ((artifact, None) for artifact in others)


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
        yield from read_index(services, artifact, shard)


def find_sample(services: Services, job_id: str, sample: int) -> tuple[Artifact, IndexEntry]:
    """The entry of a job's sample, and the artifact that holds it. Raises `NotFound`."""
    with services.database.read() as session:
        artifact, shard = artifacts.holding(session, job_id, sample)
    return artifact, read_index(services, artifact, shard).entry(sample)


def read_record(services: Services, artifact: Artifact, entry: IndexEntry) -> dict[str, Any]:
    """The record inside one sample's bytes."""
    return media.read_record(read_sample(services, artifact, entry))


def read_sample(services: Services, artifact: Artifact, entry: IndexEntry) -> bytes:
    """One sample's bytes, fetched by one ranged read."""
    return read_range(services, artifact, range(entry.offset, entry.offset + entry.size))


def read_range(services: Services, artifact: Artifact, part: range) -> bytes:
    """Some of an artifact's bytes, fetched by one ranged read."""
    whole = artifact.packed
    if whole is not None:
        return services.packs.read(Range(whole.pack, whole.offset + part.start, len(part)))
    with services.store.open(artifact.key, start=part.start, stop=part.stop) as file:
        return file.read()


def require_digest(what: str, data: bytes, sha256: str) -> None:
    """Raise `DigestMismatch` unless the bytes have this SHA-256."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DigestMismatch(f"{what} has SHA-256 {found}, not {sha256}")


def _packed_index(services: Services, artifact: Artifact, samples: int) -> bytes:
    """The index behind an artifact in its pack."""
    pack, offset = int(artifact.pack or 0), int(artifact.pack_offset or 0) + artifact.size
    data = services.packs.read(Range(pack, offset, samples * ENTRY_BYTES))
    require_digest(f"the index in {artifact.key}", data, str(artifact.index_sha256))
    return data


@lru_cache(maxsize=8)
def _fetch(store: ObjectStore, key: str, sha256: str) -> bytes:
    with store.open(key) as file:
        data = file.read()
    require_digest(f"object {key}", data, sha256)
    return data
