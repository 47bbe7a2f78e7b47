"""Runs of characters that texts share: with the training data, and with one another.

Runs are compared by a rolling hash (Karp, Rabin 1987), and texts by the least hashes of their runs
under several permutations, whose share of equal ones estimates the Jaccard index of the texts'
runs (MinHash; Broder 1997). Case, forms of characters and white space do not count.
"""

import unicodedata
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

COPIED = 50  # characters in a row that a copy shares with training
RUN = 5  # characters of the runs that tell two texts apart
NUMBERS = 128  # permutations
ALIKE = 0.8  # Jaccard index from which two texts are near-duplicates
RADIUS = (1 - ALIKE) / 2  # mean squared difference of their signatures
MOST_RUNS = 20_000_000  # of training that are kept; of more, an even share

_BASE = 0x9E3779B97F4A7C15 | 1  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_PERMUTATIONS = np.random.Generator(np.random.Philox(key=0)).integers(
    0, 2**64, (2, NUMBERS), np.uint64
)

Hashes = npt.NDArray[np.uint64]


def runs(text: str, length: int) -> Hashes:
    """The hash of each run of `length` characters; of a shorter text, of all of it."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), np.uint32).astype(
        np.uint64
    ) + np.uint64(1)
    if not len(codes):
        return np.zeros(1, np.uint64)
    length = min(length, len(codes))
    sums = np.concatenate(([np.uint64(0)], np.cumsum(codes * _powers(_BASE, len(codes)))))
    found: Hashes = (sums[length:] - sums[:-length]) * _powers(_INVERSE, len(codes) - length + 1)
    # the high bits of a product are the mixed ones
    mixed: Hashes = (found ^ (found >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(32))


def signature(text: str) -> npt.NDArray[np.float32]:
    """`NUMBERS` numbers whose share of equal ones, in two texts, estimates how alike they are.

    They are 0 or 1 (b-bit MinHash with b = 1; Li, König 2010), so that the mean squared difference
    of two signatures is half of what differs.
    """
    first, second = _PERMUTATIONS
    found = runs(text, RUN)
    least = np.full(NUMBERS, 2**64 - 1, np.uint64)
    for start in range(0, len(found), 4096):  # of a long text, in bounded memory
        some = found[start : start + 4096, None] * (first | np.uint64(1)) + second
        least = np.minimum(least, some.min(axis=0))
    bits: npt.NDArray[np.float32] = ((least >> np.uint64(40)) & np.uint64(1)).astype(np.float32)
    return bits


class Runs:
    """The runs of a training set."""

    def __init__(self, texts: Iterable[str], *, characters: int) -> None:
        """`characters`: about how many there are in all."""
        self._share = np.uint64(max(1, characters // MOST_RUNS))
        kept = [self._kept(runs(text, COPIED)) for text in texts if len(text) >= COPIED]
        self._known = np.unique(np.concatenate(kept or [np.zeros(0, np.uint64)]))

    def share(self, text: str) -> float:
        """The share of a text's runs that are in the training set."""
        found = self._kept(runs(text, COPIED))
        if not len(found) or not len(self._known):
            return 0.0
        places = np.minimum(np.searchsorted(self._known, found), len(self._known) - 1)
        return float((self._known[places] == found).mean())

    def _kept(self, found: Hashes) -> Hashes:
        kept: Hashes = found[found % self._share == 0]
        return kept


def _powers(base: int, count: int) -> Hashes:
    """1, base, base^2, ... modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    powers: Hashes = np.cumprod(factors)
    return powers
