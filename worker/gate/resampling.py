"""Resampling of items: how often each comes in a sample drawn with replacement."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from worker.metrics.samples import generator

# Resampling k items understates their variance by 1 / k: smaller strata are drawn together, which
# overstates it.
SMALLEST_STRATUM = 10

Counts = npt.NDArray[np.float64]  # (resamples, items): how often each item was drawn
Strata = npt.NDArray[np.integer] | None  # (items,): the group that each is drawn within


def draw_counts(strata: list[tuple[int, Strata]], rows: range, *, seed: int) -> list[Counts]:
    """Counts for each set of items, of the resamples in `rows`.

    A set is given by its size and its strata. Within each stratum as many items are drawn as it
    has: where labels were asked for in fixed shares, drawing over all of them would add a noise
    that the design excludes. Resample i depends on (seed, i) and the sets alone.
    """
    found = [np.empty((len(rows), size)) for size, _ in strata]
    groups = [_groups(size, labels) for size, labels in strata]
    for row, resample in enumerate(rows):
        random = generator(seed, resample)
        for counts, members in zip(found, groups, strict=True):
            chosen = np.concatenate([g[random.integers(len(g), size=len(g))] for g in members])
            counts[row] = np.bincount(chosen, minlength=counts.shape[1])
    return found


def batches(resamples: int, size: int) -> Iterator[range]:
    """Ranges of at most `size` resamples, in order."""
    for start in range(0, resamples, size):
        yield range(start, min(start + size, resamples))


def _groups(size: int, labels: Strata) -> list[npt.NDArray[np.intp]]:
    if labels is None:
        return [np.arange(size)]
    found, stratum = np.unique(labels, return_inverse=True)
    small = np.bincount(stratum) < SMALLEST_STRATUM
    stratum = np.where(small[stratum], len(found), stratum)
    return [np.flatnonzero(stratum == each) for each in np.unique(stratum)]
