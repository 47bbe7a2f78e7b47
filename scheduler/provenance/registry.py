"""The registry of fingerprints: which samples of all jobs a file is like.

Each shard of a job that keeps fingerprints has an object of 16 bytes a sample. All are read, and
the nearest samples are then compared with the file by content.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from db import artifacts
from db.artifacts import FINGERPRINTS
from db.errors import BadInput, GenmillError, Unreachable
from db.tables import Artifact, Shard
from scheduler.provenance.changes import ALIKE
from scheduler.results.threads import in_order
from worker.media import all_media, medium_of
from worker.media.base import Medium
from worker.media.fingerprints.bits import BITS, ROW_BYTES, Fingerprints, decode, fewest_bits
from worker.media.samples.record import Record
from worker.services import Services
from worker.services.fingerprints import media_type
from worker.services.samples import find_sample, open_artifact, read_sample, require_digest

AT_ONCE = 1 << 16  # fingerprints that are searched together
COMPARED = 32  # nearest samples by their fingerprints, whose content is compared
FAR = 44  # bits that differ, from which on none is near: those of strangers differ in 57 to 64
TOLD = 3  # samples of one file
ROOM = 64 << 20  # bytes of samples that are kept for the next file
ORIGIN = ("weights_sha256", "seed", "index")  # in a record: what made a sample
LARGEST, CLEARLY = 2.0, 2.0  # a copy that differs by more has no other sample so near
MOST_TOLD = 999.0  # of a difference


class Look(NamedTuple):
    """What a file is, and its fingerprints; none of one that is damaged or too plain."""

    medium: Medium
    fingerprints: Fingerprints


class Near(NamedTuple):
    """A sample that a file is like."""

    bits: int  # of `BITS` in which the fingerprints differ
    difference: float  # of content
    job: str
    artifact: str
    sample: int
    record: Record
    content: bytes  # the SHA-256 of what the sample shows
    is_copy: bool = False  # whether the file was made from it

    def document(self) -> dict[str, Any]:
        """As plain data."""
        kept = {name: getattr(self, name) for name in ("job", "artifact", "sample", "bits")}
        told = {"difference": round(min(self.difference, MOST_TOLD), 3), "copy": self.is_copy}
        return kept | {"of_bits": BITS} | told


class _Known(NamedTuple):
    """A sample that files are compared with."""

    artifact: str
    data: bytes
    record: Record
    content: bytes  # the SHA-256 of what it shows


class _Candidate(NamedTuple):
    bits: int
    shard_id: str  # of equal ones, the older one counts
    sample: int
    job: str


def look_at(data: bytes) -> Look | None:
    """What a file in any format shows; None for what no medium knows."""
    # texts first: whether bytes are text is certain, while other decoders guess
    for medium in sorted(all_media(), key=lambda each: each.precedence, reverse=True):
        try:
            return Look(medium, medium.fingerprints_of_file(data))
        except BadInput:
            continue
    try:
        return Look(medium_of(data), decode(b""))  # damaged
    except BadInput:
        return None


def find_nearest(services: Services, looks: Sequence[Look | None]) -> list[list[_Candidate]]:
    """The samples with the nearest fingerprints to each file's, nearest first."""
    found: list[list[_Candidate]] = [[] for _ in looks]
    wanted = [(place, look) for place, look in enumerate(looks) if look and look.fingerprints.any()]
    for medium in {look.medium.name: look.medium for _, look in wanted}.values():
        own = [(place, look.fingerprints) for place, look in wanted if look.medium is medium]
        for block in _blocks(in_order(partial(_read, services), _stored(services, medium))):
            rows = np.concatenate([fingerprints for _, fingerprints in block])
            for place, probes in own:
                found[place] = _nearest(found[place], block, fewest_bits(rows, probes))
    return found


class Samples:
    """Reads samples for comparison, each once while there is room: files alike have the same."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[tuple[str, int], _Known] = {}
        self._bytes = 0

    def read(self, medium: Medium, job: str, sample: int) -> _Known:
        """A sample of a job; any `GenmillError` that reading it raises."""
        if (known := self._known.get((job, sample))) is not None:
            return known
        artifact, entry = find_sample(self._services, job, sample)
        data = read_sample(self._services, artifact, entry)
        content = hashlib.sha256(medium.content(data)).digest()
        known = _Known(artifact.id, data, medium.read_record(data), content)
        if self._bytes + len(data) > ROOM:
            self._known, self._bytes = {}, 0
        self._known[job, sample] = known
        self._bytes += len(data)
        return known


def compare(
    samples: Samples, medium: Medium, data: bytes, candidates: Sequence[_Candidate]
) -> list[Near]:
    """All samples that a file may be a copy of; if there are none, the nearest ones."""
    compared = (_compared(samples, medium, data, each) for each in candidates)
    found = sorted(filter(None, compared), key=lambda near: (near.difference, near.bits))
    if not found or not _is_copy(found):
        return found[:TOLD]
    return [near._replace(is_copy=True) for near in found if _is_as_near(near, found[0])]


def _is_as_near(near: Near, best: Near) -> bool:
    """Whether a file may as well be a copy of this sample: one of equal content, or made alike.

    Jobs of one model and seed make the same samples, and may mark them differently.
    """
    if near.content == best.content:
        return True
    origins = [[each.record.get(name) for name in ORIGIN] for each in (near, best)]
    return origins[0] == origins[1] and near.difference <= CLEARLY * best.difference


def _is_copy(found: Sequence[Near]) -> bool:
    """Whether the nearest sample is near enough, or clearly nearer than others."""
    best = found[0]
    others = (near.difference for near in found if near.content != best.content)
    clear = min(others, default=np.inf) >= CLEARLY * best.difference
    return best.difference <= ALIKE or (best.difference <= LARGEST and clear)


def _stored(services: Services, medium: Medium) -> Iterator[tuple[Artifact, Shard]]:
    """Every object of fingerprints of a medium, newest first; reads a page at a time."""
    types, before = {media_type(medium)}, None
    while True:
        with services.database.read() as session:
            page = artifacts.newest_first(session, FINGERPRINTS, types, before=before, limit=1000)
        yield from page
        if not page:
            return
        before = page[-1][0].id


def _read(services: Services, stored: tuple[Artifact, Shard]) -> tuple[Shard, Fingerprints]:
    """The fingerprints of a shard; none of an object that is damaged or lost."""
    artifact, shard = stored
    try:
        with open_artifact(services, artifact) as file:
            data = file.read((shard.stop - shard.start) * ROW_BYTES + 1)
        require_digest(f"artifact {artifact.id}", data, artifact.sha256)
        return shard, decode(data)
    except Unreachable:
        raise
    except GenmillError:
        return shard, decode(b"")


_Block = list[tuple[Shard, Fingerprints]]


def _blocks(read: Iterator[tuple[Shard, Fingerprints]]) -> Iterator[_Block]:
    """Objects in blocks of about `AT_ONCE` fingerprints."""
    block: _Block = []
    count = 0
    for each in read:
        block.append(each)
        count += len(each[1])
        if count >= AT_ONCE:
            yield block
            block, count = [], 0
    if block:
        yield block


def _nearest(known: list[_Candidate], block: _Block, apart: Any) -> list[_Candidate]:
    """The nearest of those known and those of a block, whose fingerprints are `apart` bits away."""
    ends = np.cumsum([len(rows) for _, rows in block])
    some = np.argsort(apart, kind="stable")[:COMPARED].tolist()
    found = list(known)
    for row in some:
        if apart[row] < FAR:
            place = int(np.searchsorted(ends, row, side="right"))
            shard, rows = block[place]
            sample = shard.start + row - (int(ends[place]) - len(rows))
            found.append(_Candidate(int(apart[row]), shard.id, sample, shard.job_id))
    return sorted(found)[:COMPARED]


def _compared(samples: Samples, medium: Medium, data: bytes, candidate: _Candidate) -> Near | None:
    """A sample and how far a file is from it; None for one that is damaged or lost."""
    try:
        known = samples.read(medium, candidate.job, candidate.sample)
        difference = medium.copy_distance(known.data, data)
    except Unreachable:
        raise
    except GenmillError:
        return None
    place = (candidate.job, known.artifact, candidate.sample)
    return Near(candidate.bits, difference, *place, known.record, known.content)
