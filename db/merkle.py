"""The Merkle tree of RFC 9162, section 2.1: hashes, roots, proofs.

A tree is known by its perfect subtrees: the one at `Place(level, number)` covers the 2**level
leaves from number * 2**level on. A root or a proof takes O(log n) of their hashes, and so does
appending to a tree.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

EMPTY_ROOT = hashlib.sha256(b"").digest()


class Place(NamedTuple):
    """A perfect subtree; those of level 0 are the leaves."""

    level: int
    number: int


class Span(NamedTuple):
    """The leaves below a node, from `start` to before `stop`."""

    start: int
    stop: int


Hashes = Mapping[Place, bytes]


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf with these bytes."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node, from those of the two below it."""
    return hashlib.sha256(b"\1" + left + right).digest()


def places(span: Span) -> list[Place]:
    """The perfect subtrees that a node's leaves fall into, the largest first."""
    start, stop = span
    found = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        found.append(Place(level, start >> level))
        start += 1 << level
    return found


def span_hash(span: Span, hashes: Hashes) -> bytes:
    """The hash of a node, from those of its `places`; the root of a whole tree."""
    return _fold([hashes[place] for place in places(span)])


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The nodes that prove that a leaf is in the tree of this size, from the leaf upwards."""
    start, stop, found = 0, size, list[Span]()
    while stop - start > 1:
        middle = _middle(start, stop)
        if index < middle:
            found.append(Span(middle, stop))
            stop = middle
        else:
            found.append(Span(start, middle))
            start = middle
    return found[::-1]


def consistency_spans(old: int, size: int) -> list[Span]:
    """The nodes that prove that the tree of this size begins with the old one, upwards."""
    start, stop, found = 0, size, list[Span]()
    while old and stop != old:
        middle = _middle(start, stop)
        if old <= middle:
            found.append(Span(middle, stop))
            stop = middle
        else:
            found.append(Span(start, middle))
            start = middle
    if start:  # else it is the old root, which the verifier has
        found.append(Span(start, stop))
    return found[::-1]


class GrowingTree:
    """A tree that leaves are appended to, known by the `places` of all its leaves."""

    def __init__(self, size: int, hashes: Hashes) -> None:
        self.size = size
        self._peaks = [hashes[place] for place in places(Span(0, size))]

    def append(self, leaf: bytes) -> list[tuple[Place, bytes]]:
        """Append a leaf, given by its hash; return the perfect subtrees that this completes."""
        level, number, made = 0, self.size, list[tuple[Place, bytes]]()
        while number & 1:  # it is the right one of two
            leaf = node_hash(self._peaks.pop(), leaf)
            level, number = level + 1, number >> 1
            made.append((Place(level, number), leaf))
        self._peaks.append(leaf)
        self.size += 1
        return made

    @property
    def root(self) -> bytes:
        """The root of the tree as it is now."""
        return _fold(self._peaks)


def _fold(peaks: list[bytes]) -> bytes:
    *others, found = peaks or [EMPTY_ROOT]
    for other in reversed(others):
        found = node_hash(other, found)
    return found


def _middle(start: int, stop: int) -> int:
    """Where a node's left leaves end: their number is the largest power of two below all."""
    return start + (1 << (stop - start - 1).bit_length() - 1)
