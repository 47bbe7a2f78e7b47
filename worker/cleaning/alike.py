"""Groups of near-duplicates, found by 64-bit keys and confirmed by direct comparison.

Items are compared only if a band of bits of their keys is equal, and only a bounded number of
them, so that time and memory grow with the number of items and not with its square.
Source of the banding: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]  # (M, 2) of item numbers

BAND_BITS = 16
WINDOW = 128  # items that one is compared with, of those that share a band with it
_PAIRS = 1 << 19  # at once


class Likeness(ABC):
    """How near-duplicates among written items are recognised."""

    parameters: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def candidates(self) -> Iterator[Pairs]:
        """Pairs that may be near-duplicates; a pair may come more than once."""

    @abstractmethod
    def alike(self, pairs: Pairs) -> npt.NDArray[np.bool_]:
        """Which of the pairs are near-duplicates, by comparing their content."""


class Groups:
    """Disjoint sets of items: 8 bytes an item. A group is called by its first member."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)

    def roots(self, items: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The name of each item's group."""
        found = self._parents[items]
        while (further := self._parents[found]).tobytes() != found.tobytes():
            found = further
        self._parents[items] = found
        return found

    def join(self, pairs: Pairs) -> None:
        """Put the two items of each pair into one group."""
        for one, other in pairs.tolist():
            first, second = sorted((self._root(one), self._root(other)))
            self._parents[second] = first

    def _root(self, item: int) -> int:
        while (parent := int(self._parents[item])) != item:
            self._parents[item] = self._parents[parent]
            item = parent
        return item

    def names(self) -> npt.NDArray[np.int64]:
        """The name of every item's group."""
        return self.roots(np.arange(len(self._parents)))


def find_groups(likeness: Likeness, count: int) -> Groups:
    """The groups of near-duplicates among `count` items."""
    groups = Groups(count)
    for found in likeness.candidates():
        apart = groups.roots(found[:, 0]) != groups.roots(found[:, 1])
        pairs = np.unique(np.sort(found[apart], axis=1), axis=0)
        groups.join(pairs[likeness.alike(pairs)])
    return groups


def near_pairs(
    keys: Keys, probes: Keys, *, bits: int, band_bits: int = BAND_BITS
) -> Iterator[Pairs]:
    """Pairs of an item of `keys` and one of `probes` that differ in at most `bits` bits.

    Of the `WINDOW` nearest with an equal band; complete for fewer bits than there are bands, else
    most of them.
    """
    for band in range(0, 64, band_bits):
        turned, wanted = _rotated(keys, band), _rotated(probes, band)
        for pairs in _colliding(turned, wanted, shift=np.uint64(64 - band_bits)):
            apart = np.bitwise_count(keys[pairs[:, 0]] ^ probes[pairs[:, 1]])
            yield pairs[apart <= bits]


def equal_pairs(keys: Keys) -> Iterator[Pairs]:
    """Pairs of items whose whole keys are equal."""
    yield from _colliding(keys, keys, shift=np.uint64(0))


def _rotated(keys: Keys, bits: int) -> Keys:
    """The keys with the band that begins at bit `bits` in front."""
    if not bits:
        return keys
    return (keys << np.uint64(bits)) | (keys >> np.uint64(64 - bits))


def _colliding(keys: Keys, probes: Keys, *, shift: np.uint64) -> Iterator[Pairs]:
    """Pairs of items whose keys are equal from bit `shift` on, the nearest `WINDOW` of them."""
    order = np.argsort(keys)
    ranked = keys[order]
    fronts = ranked >> shift
    for block in np.array_split(np.arange(len(probes)), max(1, len(probes) * WINDOW // _PAIRS)):
        probe = probes[block]
        low = np.searchsorted(fronts, probe >> shift)
        high = np.searchsorted(fronts, probe >> shift, side="right")
        middle = np.searchsorted(ranked, probe) - WINDOW // 2
        first = np.maximum(low, np.minimum(middle, high - WINDOW))
        count = np.minimum(high - first, WINDOW)
        starts = np.repeat(np.cumsum(count) - count, count)
        places = np.repeat(first, count) + np.arange(count.sum()) - starts
        pairs = np.stack([order[places], np.repeat(block, count)], axis=1)
        yield pairs[pairs[:, 0] != pairs[:, 1]]
