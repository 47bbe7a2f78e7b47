"""Near-duplicate texts: a word changed, a line added; other case or spacing alone.

Texts are sets of shingles, five characters each, so that languages without spaces are served too.
MinHash (Broder 1997, by datasketch) finds texts whose sets overlap, and their Jaccard similarity is
then computed from the texts themselves.
"""

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from worker.cleaning.alike import Keys, Likeness, Pairs, equal_pairs
from worker.cleaning.rows import texts_of

SHINGLE = 5  # characters
SIMILARITY = 0.7  # of Jaccard, from which on two texts are near-duplicates
ROWS, BANDS = 4, 20  # a pair of similarity 0.7 is found with probability 0.996, one of 0.4 with 0.4
MAX_CHARACTERS = 20_000  # of a text that are compared

Shingles = npt.NDArray[np.uint32]


class AlikeTexts(Likeness):
    """Rows of a file that share most of their shingles. Takes 168 bytes a row."""

    parameters: ClassVar[dict[str, Any]] = {
        "hash": "minhash",
        "shingle": SHINGLE,
        "jaccard": SIMILARITY,
        "bands": BANDS,
    }

    def __init__(self, path: Path, count: int) -> None:
        """The rows are the `count` lines of the file at `path`, as JSON."""
        self._path = path
        self._keys = np.empty((BANDS, count), np.uint64)
        self._starts = np.empty(count, np.int64)

    def candidates(self) -> Iterator[Pairs]:
        """Pairs that have a whole band of MinHash in common."""
        self._read()
        for band in self._keys:
            yield from equal_pairs(band)

    def alike(self, pairs: Pairs) -> npt.NDArray[np.bool_]:
        """Whether the Jaccard similarity of each pair is at least `SIMILARITY`."""
        known: dict[int, Shingles] = {}
        found = np.zeros(len(pairs), bool)
        with self._path.open("rb") as file:

            def of(row: int) -> Shingles:
                if row not in known:
                    if len(known) > 1000:
                        known.clear()
                    file.seek(self._starts[row])
                    known[row] = shingles_of(json.loads(file.readline()))
                return known[row]

            for place, (one, other) in enumerate(pairs.tolist()):
                found[place] = _jaccard(of(one), of(other)) >= SIMILARITY
        return found

    def _read(self) -> None:
        from datasketch import MinHash  # noqa: PLC0415 - SciPy comes with it

        empty = MinHash(num_perm=ROWS * BANDS, hashfunc=int)
        at = 0
        with self._path.open("rb") as lines:
            for row, line in enumerate(lines):
                self._starts[row] = at
                at += len(line)
                sketch = empty.copy()
                sketch.update_batch(shingles_of(json.loads(line)))
                self._keys[:, row] = _bands(sketch.hashvalues)


def shingles_of(row: dict[str, Any]) -> Shingles:
    """The distinct shingles of a row's texts, as hashes of 32 bits, sorted."""
    text = re.sub(r"\s+", " ", " ".join(texts_of(row))[:MAX_CHARACTERS].casefold()).strip()
    last = max(1, len(text) - SHINGLE + 1)
    hashes = {zlib.crc32(text[i : i + SHINGLE].encode("utf-8", "replace")) for i in range(last)}
    return np.array(sorted(hashes), np.uint32)


def _bands(values: npt.NDArray[np.uint64]) -> Keys:
    """A key of 64 bits for the `ROWS` values of each band."""
    keys = np.zeros(BANDS, np.uint64)
    for column in values.reshape(BANDS, ROWS).T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _jaccard(one: Shingles, other: Shingles) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
