"""Storing finished objects of samples: one each, or many small ones in a pack."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from db.commits import NewArtifact, NewIndex, Range, blob_prefix
from db.jobs import JobBrief
from worker.media.base import Medium
from worker.media.samples.containers import Written
from worker.services.fingerprints import describe_fingerprints
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
    fingerprints: bytes = b""  # of the samples, if they are kept
    medium: Medium | None = None  # of samples that have some


def store_finished(
    store: ObjectStore, finished: Sequence[Finished]
) -> list[tuple[Part, list[NewArtifact]]]:
    """Store objects with their indexes and fingerprints, several in a pack.

    The caller records them.
    """
    if len(finished) == 1:
        [one] = finished
        return [(one.part, _store_alone(store, one))]
    pack = PackWriter()
    packed = [(each.part, _add_to_pack(pack, each)) for each in finished]
    pack.store(store)
    return packed


def _add_to_pack(pack: PackWriter, finished: Finished) -> list[NewArtifact]:
    """Add an object, its index unless the record is going to hold that, and its fingerprints."""
    written = finished.written
    content, index = written.read(), describe_index(written.index)
    place = pack.add(content)
    if index.sha256:
        pack.add(written.index.data)
    made = [_artifact(finished, _packed(place, content), index=index, packed=place)]
    if rows := finished.fingerprints:
        place = pack.add(rows)
        made.append(_fingerprints(finished, _packed(place, rows), place))
    return made


def _store_alone(store: ObjectStore, finished: Finished) -> list[NewArtifact]:
    """Store a part's object, its index and its fingerprints; the caller records them."""
    part, written = finished.part, finished.written
    prefix, content = blob_prefix(part.job.id), written.content
    if isinstance(content, bytes):
        blob = store.put_bytes(prefix, content, durable=False)  # the commit flushes
    else:
        blob = store.put(prefix, content)
    made = [_artifact(finished, blob, index=store_index(store, part.job.id, written.index))]
    if rows := finished.fingerprints:
        made.append(_fingerprints(finished, store.put_bytes(prefix, rows, durable=False)))
    return made


def _packed(place: Range, content: bytes) -> Blob:
    return Blob(place.key, hashlib.sha256(content).hexdigest(), place.size)


def _fingerprints(finished: Finished, blob: Blob, packed: Range | None = None) -> NewArtifact:
    assert finished.medium is not None  # noqa: S101 - for mypy
    return describe_fingerprints(finished.part.lease.claim.idx, finished.medium, blob, packed)


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
