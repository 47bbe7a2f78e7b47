"""Storing finished objects of samples: one each, or many small ones in a pack."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

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


Finished = tuple[Part, Written]


def store_finished(
    store: ObjectStore, finished: Sequence[Finished]
) -> list[tuple[Part, NewArtifact]]:
    """Store objects with their indexes, several in a pack; the caller records them."""
    if len(finished) == 1:
        [(part, written)] = finished
        return [(part, _store_alone(store, part, written))]
    pack = PackWriter()
    packed = [(part, _add_to_pack(pack, part, written)) for part, written in finished]
    pack.store(store)
    return packed


def _add_to_pack(pack: PackWriter, part: Part, written: Written) -> NewArtifact:
    """Add an object, and its index unless the record is going to hold that."""
    content, index = written.read(), describe_index(written.index)
    place = pack.add(content)
    if index.sha256:
        pack.add(written.index.data)
    sha256 = hashlib.sha256(content).hexdigest()
    blob = Blob(place.key, sha256, place.size)
    return _artifact(part, written, blob, index=index, packed=place)


def _store_alone(store: ObjectStore, part: Part, written: Written) -> NewArtifact:
    """Store a part's object and its index; the caller records them."""
    prefix, content = blob_prefix(part.job.id), written.content
    if isinstance(content, bytes):
        blob = store.put_bytes(prefix, content, durable=False)  # the commit flushes
    else:
        blob = store.put(prefix, content)
    return _artifact(part, written, blob, index=store_index(store, part.job.id, written.index))


def _artifact(
    part: Part, written: Written, blob: Blob, *, index: NewIndex, packed: Range | None = None
) -> NewArtifact:
    return NewArtifact(
        "samples",
        f"samples-{part.lease.claim.idx:06d}{written.extension}",
        blob.key,
        blob.sha256,
        blob.size,
        written.media_type,
        index=index,
        packed=packed,
    )
