"""Storing finished objects of samples: one each, or many small ones in a pack."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from db.commits import NewArtifact, NewIndex, Range, blob_prefix
from db.jobs import JobBrief
from worker.media.samples.containers import Written
from worker.services.pinned import PinnedGeneration
from worker.services.samples import describe_index, store_index
from worker.shards.lease import Lease
from worker.store.base import Blob, ObjectStore
from worker.store.packs import PackWriter


@dataclass(frozen=True, eq=False)
class Part:
    """A claimed shard of a generate job, which may share forward passes with others."""

    job: JobBrief
    pinned: PinnedGeneration
    lease: Lease


class Finished(NamedTuple):
    """An object of a part's samples that is to be stored."""

    part: Part
    written: Written
    marks: Mapping[str, Any] | None = None  # what became of each, of marked samples


def store_finished(
    store: ObjectStore, finished: Sequence[Finished]
) -> list[tuple[Part, NewArtifact]]:
    """Store objects with their indexes, several in a pack; the caller records them."""
    if len(finished) == 1:
        [one] = finished
        return [(one.part, _store_alone(store, one))]
    pack = PackWriter()
    packed = [(each.part, _add_to_pack(pack, each)) for each in finished]
    pack.store(store)
    return packed


def _add_to_pack(pack: PackWriter, finished: Finished) -> NewArtifact:
    """Add an object, and its index unless the record is going to hold that."""
    written = finished.written
    content, index = written.read(), describe_index(written.index)
    place = pack.add(content)
    if index.sha256:
        pack.add(written.index.data)
    sha256 = hashlib.sha256(content).hexdigest()
    blob = Blob(place.key, sha256, place.size)
    return _artifact(finished, blob, index=index, packed=place)


def _store_alone(store: ObjectStore, finished: Finished) -> NewArtifact:
    """Store a part's object and its index; the caller records them."""
    part, written = finished.part, finished.written
    prefix, content = blob_prefix(part.job.id), written.content
    if isinstance(content, bytes):
        blob = store.put_bytes(prefix, content, durable=False)  # the commit flushes
    else:
        blob = store.put(prefix, content)
    return _artifact(finished, blob, index=store_index(store, part.job.id, written.index))


def _artifact(
    finished: Finished, blob: Blob, *, index: NewIndex, packed: Range | None = None
) -> NewArtifact:
    written = finished.written
    return NewArtifact(
        "samples",
        f"samples-{finished.part.lease.claim.idx:06d}{written.extension}",
        blob.key,
        blob.sha256,
        blob.size,
        written.media_type,
        index=index,
        packed=packed,
        marks=finished.marks,
    )
