"""Bootstrap intervals and real against real.

Efron and Tibshirani 1993, "An introduction to the bootstrap", chapters 10 and 13.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.metrics.samples import Indices, Values, generator

RESAMPLES = 1_000
CONFIDENCE = 0.95

Sample = npt.NDArray[Any] | tuple[npt.NDArray[Any], ...]  # items on axis 0


class Interval(NamedTuple):
    """A value and the bounds between which it lies with the stated confidence."""

    value: float
    low: float
    high: float


def interval(
    statistic: Callable[..., float],
    *samples: Sample,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Percentile bootstrap interval of `statistic(*samples)`, resampling items.

    Each sample is resampled on its own. A tuple of arrays is one sample, its arrays share their
    items, and the statistic gets it as a tuple: `interval(agreement, (asked, predicted))`.

    The percentiles are shifted so that the mean of the resampled values falls on the value: a
    distance between distributions is larger with resampled items, as some of them come twice, and
    without the shift its value would lie outside its own interval.
    """
    _check(samples, resamples, confidence)
    value = float(statistic(*samples))
    sizes = [_size(sample) for sample in samples]
    values = np.array(
        [statistic(*map(_take, samples, chosen)) for chosen in draws(sizes, resamples, seed)]
    )
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail]) - values.mean() + value
    return Interval(value, float(low), float(high))


def interval_of_pairs(
    means: Values,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Interval of a mean over all pairs of items, from each item's mean over its pairs, (N,).

    As for `perceptual_diversity` from `mean_distances`. An item counts in each of its pairs twice,
    as one and as the other, so the mean over pairs deviates twice as far as the mean of `means`
    does (Hoeffding 1948, "A class of statistics with asymptotically normal distribution").
    """
    value, low, high = interval(
        np.mean, means, resamples=resamples, seed=seed, confidence=confidence
    )
    return Interval(value, 2 * low - value, 2 * high - value)


def draws(sizes: list[int], resamples: int, seed: int) -> Iterator[list[Indices]]:
    """For each resample, indices with replacement into samples of the given sizes.

    Resample i depends on (seed, i) and the sizes alone.
    """
    for resample in range(resamples):
        random = generator(seed, resample)
        yield [random.integers(size, size=size) for size in sizes]


def halves(count: int, *, size: int, seed: int = 0) -> tuple[Indices, Indices]:
    """Two disjoint random sets of `size` of `count` items: real against real at that size."""
    if not 0 < 2 * size <= count:
        raise Refused(
            f"{count} items have no two disjoint halves of {size}",
            remedy=f"use {count // 2} items or fewer",
        )
    order = generator(seed).permutation(count)
    return order[:size], order[size : 2 * size]


def _take(sample: Sample, chosen: Indices) -> Sample:
    if isinstance(sample, tuple):
        return tuple(array[chosen] for array in sample)
    return sample[chosen]


def _size(sample: Sample) -> int:
    return len(sample[0]) if isinstance(sample, tuple) else len(sample)


def _check(samples: tuple[Sample, ...], resamples: int, confidence: float) -> None:
    if not samples or not all(_size(sample) for sample in samples):
        raise Refused("an interval of no items", remedy="pass one item or more of each sample")
    for sample in samples:
        if isinstance(sample, tuple) and len({len(array) for array in sample}) > 1:
            lengths = ", ".join(str(len(array)) for array in sample)
            raise Refused(
                f"arrays of {lengths} items do not share their items",
                remedy="pass arrays of different items as samples of their own",
            )
    if resamples < 2 or not 0 < confidence < 1:
        raise Refused(
            f"{resamples} resamples at confidence {confidence}",
            remedy="use two resamples or more and a confidence between 0 and 1",
        )
