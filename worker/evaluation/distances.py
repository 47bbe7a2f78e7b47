"""Numbers of pictures by their features: made against held-out ones, and training against both."""

import math
from functools import partial

import numpy as np
import numpy.typing as npt

from worker.evaluation.numbers import RESAMPLES, Numbers
from worker.evaluation.stages import Stage
from worker.metrics import bootstrap, diversity, frechet, kernel, transport
from worker.metrics.distances import mean_distances
from worker.metrics.neighbourhoods import Neighbourhoods, neighbourhoods
from worker.metrics.samples import Features

FEW_PROJECTIONS = 50  # of a resample: the spread of the mean over more is hardly smaller
FEW_RESAMPLES = 100


def add_distances(
    numbers: Numbers, made: Features, real: Features, other: Features | None, stage: Stage
) -> None:
    """Add the numbers of two sets of equal size; `other` real items show what is noise."""
    steps = (_add_frechet, _add_kernel, _add_transport, _add_neighbourhoods, _add_diversity)
    for done, step in enumerate(steps, start=1):
        step(numbers, made, real, other)
        stage.tick(done, len(steps))


def _add_frechet(numbers: Numbers, made: Features, real: Features, other: Features | None) -> None:
    if not numbers.suits(len(made), "fid"):
        return
    found = bootstrap.interval(frechet.frechet_distance, real, made, resamples=RESAMPLES)
    alike = None if other is None else frechet.frechet_distance(real, other)
    numbers.add("fid", found, n=len(made), real=alike)


def _add_kernel(numbers: Numbers, made: Features, real: Features, other: Features | None) -> None:
    if not numbers.suits(len(made), "kid"):
        return
    alike = None if other is None else _kernel_distance(real, other)
    numbers.add("kid", _kernel_interval(real, made), n=len(made), real=alike)


def _kernel_distance(real: Features, made: Features) -> float:
    subsets = kernel.SUBSETS if len(real) > kernel.SUBSET_SIZE else 1
    return kernel.kernel_distance(real, made, subsets=subsets)


def _kernel_interval(real: Features, made: Features) -> bootstrap.Interval:
    """The spread of subsets of at most half of the items, scaled to that of all items.

    Items that come twice, as in a bootstrap, would break the kernel's freedom from bias.
    """
    value, size = _kernel_distance(real, made), min(kernel.SUBSET_SIZE, len(real) // 2)
    values = kernel.subset_distances(real, made, subset_size=size)
    tails = np.percentile(values - values.mean(), [2.5, 97.5])
    low, high = value + tails * math.sqrt(size / (len(real) - size))
    return bootstrap.Interval(value, float(low), float(high))


def _add_transport(
    numbers: Numbers, made: Features, real: Features, other: Features | None
) -> None:
    sliced = partial(transport.sliced_distance, projections=FEW_PROJECTIONS)
    quick = partial(transport.monge_distance, projections=FEW_PROJECTIONS)
    for name, exact, rough in (
        ("mind", transport.monge_distance, quick),
        ("emd", transport.earth_movers_distance, sliced),
    ):
        value, alike = exact(real, made), None if other is None else exact(real, other)
        spread = bootstrap.interval(rough, real, made, resamples=FEW_RESAMPLES)
        low, high = value + spread.low - spread.value, value + spread.high - spread.value
        numbers.add(name, bootstrap.Interval(value, low, high), n=len(made), real=alike)


def _add_neighbourhoods(
    numbers: Numbers, made: Features, real: Features, other: Features | None
) -> None:
    names = Neighbourhoods._fields
    if not numbers.suits(len(made), *names):
        return
    found = neighbourhoods(real, made)
    alike = None if other is None else neighbourhoods(real, other)
    for place, name in enumerate(names):
        real_value = None if alike is None else float(np.mean(alike[place]))
        values = np.asarray(found[place], np.float64)
        numbers.add(name, bootstrap.interval(np.mean, values), n=len(made), real=real_value)


def _add_diversity(
    numbers: Numbers, made: Features, real: Features, other: Features | None
) -> None:
    n = len(made)
    if not numbers.suits(n, "perceptual_diversity", "feature_entropy"):
        return
    spread = bootstrap.interval_of_pairs(mean_distances(made))
    alike = diversity.perceptual_diversity(real)
    numbers.add("perceptual_diversity", spread, n=n, real=alike)
    entropy = bootstrap.interval(diversity.feature_entropy, made, resamples=RESAMPLES)
    numbers.add("feature_entropy", entropy, n=n, real=diversity.feature_entropy(real))


def intra_class_interval(
    features: Features, labels: npt.NDArray[np.int64]
) -> bootstrap.Interval | None:
    """`diversity.intra_class_distance`, each item's share resampled; None without any pair."""
    shares = diversity.intra_class_shares(features, labels)
    paired = shares[~np.isnan(shares)]
    return bootstrap.interval_of_pairs(paired) if len(paired) else None
