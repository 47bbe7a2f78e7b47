"""The lowest frequencies of the middle of a picture or spectrogram, as bits.

The middle four fifths are described, so that a copy that was cropped still holds all of what its
original's fingerprint is about. Where it lies in the copy depends on what was cut off: a file is
looked up as if each of the `CUTS` had been made. Each frequency becomes two bits: whether it is
above the lower third, and above the upper third, of all frequencies of its grid. So neither
brightness nor contrast counts, and a small change of a frequency changes one bit at most.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from worker.cleaning.alike.images import cosines
from worker.media.fingerprints.bits import Fingerprints, pack

BINS = 32  # of the middle of each axis
EDGE = 0.1  # of each side, which is left out
CUTS = (0.0, 0.05, 0.1)  # shares that were cut off at one end

Grid = npt.NDArray[np.float32]
Span = tuple[float, float]  # of an axis, from 0 to 1

MIDDLE: Span = (EDGE, 1 - EDGE)


def span_after(begin: float, end: float) -> Span:
    """Where the original's middle lies in a copy that lost these shares at its two ends."""
    left = 1 - begin - end
    return (EDGE - begin) / left, (1 - EDGE - begin) / left


SPANS = tuple(itertools.starmap(span_after, itertools.product(CUTS, CUTS)))


@lru_cache(maxsize=4096)
def means_over(points: int, span: Span, bins: int = BINS) -> Grid:
    """The matrix (bins, points) that averages a span of an axis in equal parts."""
    edges = np.linspace(*span, bins + 1) * points
    cells = np.arange(points)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights = np.maximum(overlap, 0)
    means: Grid = np.asarray(weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return means


def bits_of(low: Grid, *, plain: float) -> Fingerprints:
    """Fingerprints of 64 frequencies each, (N, 64); none of grids that vary less than `plain`.

    `plain` is a standard deviation.
    """
    ranked = np.sort(low, axis=1)
    third = low.shape[1] // 3
    bits = np.concatenate([low > ranked[:, [third]], low > ranked[:, [-third - 1]]], axis=1)
    # by Parseval's theorem, of frequencies that are 2 * BINS times those of an orthonormal DCT
    deviation = np.linalg.norm(low, axis=1) / (2 * BINS * BINS)
    return pack(bits & (deviation >= plain)[:, None])


def frequencies(grids: Grid, rows: Sequence[Grid], columns: Sequence[Grid]) -> Grid:
    """The products of each pair of `rows` and `columns` with grids (N, H, W), each (K, _).

    (N * pairs, K * K), the pairs of a grid one after another.
    """
    found = [each @ grids @ other.T for each in rows for other in columns]
    return np.asarray(np.stack(found, axis=1), np.float32).reshape(len(grids) * len(found), -1)


@lru_cache(maxsize=4096)
def cosines_over(points: int, span: Span, count: int = 8, *, first: int = 0) -> Grid:
    """The matrix (count, points) that gives the frequencies of a span from `first` on."""
    return cosines(BINS, first + count)[first:] @ means_over(points, span)


def finer(span: Span, step: float) -> Iterator[Span]:
    """Spans whose ends are up to `step` from those of another, itself among them."""
    for begin, end in itertools.product((-step, 0.0, step), repeat=2):
        yield max(0.0, span[0] + begin), min(1.0, span[1] + end)
