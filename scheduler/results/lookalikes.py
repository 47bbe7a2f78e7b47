"""Finding the sample that a picture shows, after it was encoded again and lost its record.

Every stored sample of a medium that is `recognised` is compared by its sketch, then the nearest
ones by their content. Nothing is kept for that beforehand: it takes a look at all samples in the
store, so only files that are known by nothing else are looked for.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from db import artifacts
from db.errors import BadInput, GenmillError, Unreachable
from db.tables import Artifact, Shard
from scheduler.results.threads import in_order
from worker.media import all_media, medium_of
from worker.media.base import Medium, Sketches
from worker.media.samples.index import IndexEntry
from worker.media.samples.record import Record
from worker.services import Services
from worker.services.samples import open_artifact, read_index, read_sample

BLOCK = 256  # samples whose sketches are made at once
NEAREST = 8  # samples by their sketches, whose content is compared
FAR = 0.6 * 127  # between sketches, above which content is not compared
CERTAIN = 1.0  # a difference that proves a file to be a sample
LARGEST = 2.0  # and one that does if that of any other sample is CLEARLY larger
CLEARLY = 1.5

OnCompared = Callable[[int], object]


class Alike(NamedTuple):
    """The sample that a file shows, and how far it is from it."""

    job: str
    artifact: str
    record: Record
    difference: float


class _Wanted(NamedTuple):
    """Files of a medium to look for, by their places among all, and a row of sketches each."""

    medium: Medium
    places: list[int]
    sketches: Sketches


class _Near(NamedTuple):
    """A sample whose sketch is near a file's."""

    distance: float
    artifact_id: str  # of equal ones, the older one counts
    artifact: Artifact
    entry: IndexEntry


Hits = list[tuple[int, _Near]]  # by the place of the file
Stored = tuple[Artifact, Shard]


def find_alike(
    services: Services, files: Sequence[bytes], on_compared: OnCompared = lambda _: None
) -> list[Alike | None]:
    """The stored sample that each file shows, the oldest of equal ones; None if there is none."""
    wanted = list(_sketched(files))
    if not wanted:
        return [None] * len(files)
    near: dict[int, list[_Near]] = {place: [] for each in wanted for place in each.places}
    compared = 0
    for count, hits in in_order(partial(_compare, services, wanted), _stored(services, wanted)):
        for place, hit in hits:
            near[place] = sorted([*near[place], hit], key=lambda it: it[:2])[:NEAREST]
        compared += count
        on_compared(compared)
    media = {place: each.medium for each in wanted for place in each.places}
    return [
        _most_alike(services, media[place], data, near[place]) if place in near else None
        for place, data in enumerate(files)
    ]


def _sketched(files: Sequence[bytes]) -> Iterator[_Wanted]:
    """The files that can be read, by medium."""
    for medium in all_media():
        rows: dict[int, Sketches] = {}
        for place, data in enumerate(files if medium.recognised else ()):
            try:
                rows[place] = medium.sketch_of_file(data)
            except BadInput:
                continue
        if rows:
            yield _Wanted(medium, list(rows), np.concatenate(list(rows.values())))


def _stored(services: Services, wanted: Sequence[_Wanted]) -> Iterator[Stored]:
    """Every object of samples that may be like them, newest first; reads a page at a time."""
    types = {each.medium.container.media_type for each in wanted}
    before: str | None = None
    while True:
        with services.database.read() as session:
            page = artifacts.newest_first(session, "samples", types, before=before)
        if not page:
            return
        yield from page
        before = page[-1][0].id


def _compare(services: Services, wanted: Sequence[_Wanted], stored: Stored) -> tuple[int, Hits]:
    """How many samples of an object were compared, and those near a file.

    An object that is damaged or lost has none.
    """
    artifact, shard = stored
    hits: Hits = []
    count = 0
    try:
        entries = sorted(read_index(services, artifact, shard), key=lambda entry: entry.offset)
        with open_artifact(services, artifact) as file:
            for block, samples in _blocks(file, entries):
                medium = medium_of(samples[0])
                for each in wanted:
                    if each.medium is medium:
                        hits += _hits(each, artifact, block, medium.sketches(samples))
                        count += len(block)
    except Unreachable:
        raise
    except GenmillError:
        return count, hits
    return count, hits


def _blocks(
    file: BinaryIO, entries: Sequence[IndexEntry]
) -> Iterator[tuple[Sequence[IndexEntry], list[bytes]]]:
    """The samples of an object, which is read once from beginning to end."""
    position = 0
    for first in range(0, len(entries), BLOCK):
        block, samples = entries[first : first + BLOCK], list[bytes]()
        for entry in block:
            file.read(entry.offset - position)
            samples.append(file.read(entry.size))
            position = entry.offset + entry.size
        yield block, samples


def _hits(
    wanted: _Wanted, artifact: Artifact, block: Sequence[IndexEntry], sketches: Sketches
) -> Iterator[tuple[int, _Near]]:
    apart = _distances(sketches, wanted.sketches)  # (samples, files)
    order = np.argsort(apart, axis=0, kind="stable")[:NEAREST]
    for column, place in enumerate(wanted.places):
        for row in order[:, column].tolist():
            distance = float(apart[row, column])
            if distance > FAR:
                break
            yield place, _Near(distance, artifact.id, artifact, block[row])


def _distances(some: Sketches, others: Sketches) -> npt.NDArray[np.float32]:
    """The distance of each row to each of the others."""
    one, other = some.astype(np.float32), others.astype(np.float32)
    squares = np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float32)


def _most_alike(
    services: Services, medium: Medium, data: bytes, near: Sequence[_Near]
) -> Alike | None:
    """The sample with the least difference, if that is small, or much less than any other's."""
    found = [(*_difference(services, medium, data, each), each) for each in near]
    best, sample, hit = min(found, key=lambda it: it[0], default=(np.inf, b"", None))
    if hit is None or best > LARGEST:
        return None
    others = [difference for difference, _, it in found if it.entry.sha256 != hit.entry.sha256]
    if best > CERTAIN and min(others, default=np.inf) < CLEARLY * best:
        return None
    return Alike(hit.artifact.job_id, hit.artifact_id, medium.read_record(sample), best)


def _difference(
    services: Services, medium: Medium, data: bytes, near: _Near
) -> tuple[float, bytes]:
    """How far a file is from a sample, and the sample; infinite for a damaged one."""
    try:
        sample = read_sample(services, near.artifact, near.entry)
        medium.read_record(sample)
        return medium.difference(sample, data), sample
    except Unreachable:
        raise
    except GenmillError:
        return np.inf, b""
