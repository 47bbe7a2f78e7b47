"""Where a file differs from the sample that it was: which bytes, and what these bytes are."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from db.errors import GenmillError
from worker.media.base import Medium
from worker.media.samples.parts import Part
from worker.media.samples.record import begins_as_object

DIFFERS, MISSING, ADDED, DAMAGED = "differs", "missing", "added", "damaged"
GAP = 16  # equal bytes between two changes that are told as one
MOST = 20  # changes of a file that are told
ALIKE = 1.0  # a difference of content, up to which a file is a copy
FEW = 16  # bytes of a small file that may differ


@dataclass(frozen=True)
class Change:
    """A part of a file that is not as it was; bytes `start` to `stop` of the file as it is."""

    part: str
    what: str
    start: int | None = None
    stop: int | None = None

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def find_changes(medium: Medium, original: bytes, data: bytes) -> list[Change]:
    """How a file differs from the sample as it was stored; of very many changes, the first."""
    if len(original) == len(data):
        found = _overwritten(medium, original, data)
    else:
        found = _rewritten([*medium.parts(original)], original, [*medium.parts(data)], data)
    return list(islice(found, MOST))


def find_damage(medium: Medium, data: bytes) -> list[Change]:
    """The parts of a file that show by themselves that they were changed."""
    if not medium.claims(data):
        return []  # in another format
    parts = (part for part in medium.parts(data) if not part.intact)
    told = islice(parts, MOST)
    return [Change(part.name, DAMAGED, part.start, part.stop) for part in told]


def same_content(medium: Medium, original: bytes, data: bytes) -> bool:
    """Whether a file still shows, sounds or reads as its sample: only what is around it differs.

    Not of JSON with a name twice: programs differ in which of the two they read.
    """
    try:
        if begins_as_object(data):
            json.loads(data, object_pairs_hook=_refuse_doubled)
        return medium.content(original) == medium.content(data)
    except (GenmillError, ValueError, RecursionError):
        return False


def only_spelling(original: bytes, data: bytes) -> bool:
    """Whether two files are the same JSON, written with other spaces, line ends or escapes."""
    try:
        # as text: 1, 1.0 and true are equal in Python
        one, other = (repr(json.loads(each, object_pairs_hook=tuple)) for each in (original, data))
    except (ValueError, RecursionError):
        return False
    return one == other


def _refuse_doubled(pairs: Sequence[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise ValueError


def is_same_sample(medium: Medium, original: bytes, data: bytes) -> bool:
    """Whether a changed file is still this sample, which its record alone does not show.

    Its content is near, or if it cannot be read any more, few of its bytes differ.
    """
    if same_content(medium, original, data):
        return True
    try:
        return medium.copy_distance(original, data) <= ALIKE
    except GenmillError:
        short = min(len(original), len(data))
        before, after = (np.frombuffer(each[:short], np.uint8) for each in (original, data))
        return int(np.count_nonzero(before != after)) <= max(FEW, short // 100)


def _overwritten(medium: Medium, original: bytes, data: bytes) -> Iterator[Change]:
    """Stretches of bytes that differ, in the parts of the original."""
    before, after = (np.frombuffer(each, np.uint8) for each in (original, data))
    for part in medium.parts(original):
        differ = np.flatnonzero(before[part.start : part.stop] != after[part.start : part.stop])
        for run in np.split(differ, np.flatnonzero(np.diff(differ) > GAP) + 1):
            if len(run):
                start, stop = part.start + int(run[0]), part.start + int(run[-1]) + 1
                yield Change(part.name, DIFFERS, start, stop)


def _rewritten(
    before: Sequence[Part], original: bytes, after: Sequence[Part], data: bytes
) -> Iterator[Change]:
    """Parts that are no longer there, are new, or have other bytes; those of one name in order."""
    left = list(after)
    for part in before:
        same = next((other for other in left if other.name == part.name), None)
        if same is None:
            yield Change(part.name, MISSING)
            continue
        left.remove(same)
        old, new = original[part.start : part.stop], data[same.start : same.stop]
        if old != new:
            first, last = _difference(old, new)
            yield Change(part.name, DIFFERS, same.start + first, same.start + last)
    yield from (Change(part.name, ADDED, part.start, part.stop) for part in left)


def _difference(old: bytes, new: bytes) -> tuple[int, int]:
    """Where the new bytes first differ from the old ones, and where they are the same again."""
    short = min(len(old), len(new))
    first = _common(old[:short], new[:short])
    last = _common(old[::-1][: short - first], new[::-1][: short - first])
    return first, len(new) - last


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two of one length begin with in common."""
    differ = np.flatnonzero(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8))
    return int(differ[0]) if len(differ) else len(one)
