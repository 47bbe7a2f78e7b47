"""Kernel distance: unbiased squared maximum mean discrepancy with a cubic kernel.

Binkowski et al. 2018, "Demystifying MMD GANs", arXiv:1801.01401, equation 4 and section 4.1.
"""

import numpy as np

from worker.metrics.samples import Features, Values, check_pair, generator

SUBSETS = 100
SUBSET_SIZE = 1_000


def kernel_distance(
    real: Features,
    made: Features,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> float:
    """KID: the mean of `subset_distances`; lower is better. Unbiased, so it may be below 0."""
    return float(
        subset_distances(real, made, subsets=subsets, subset_size=subset_size, seed=seed).mean()
    )


def subset_distances(
    real: Features,
    made: Features,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> Values:
    """`squared_mmd` of random subsets of real (N, D) and made (M, D), shape (subsets,).

    A subset has `subset_size` items of each side, drawn without replacement; all of the smaller
    side where that has fewer.
    """
    check_pair(real, made)
    size = min(subset_size, len(real), len(made))
    draws = (generator(seed, subset) for subset in range(subsets))
    return np.array(
        [
            squared_mmd(
                real[draw.choice(len(real), size, replace=False)],
                made[draw.choice(len(made), size, replace=False)],
            )
            for draw in draws
        ]
    )


def squared_mmd(real: Features, made: Features) -> float:
    """Unbiased squared MMD with the kernel (x . y / D + 1)^3, in float64.

    Takes time and memory in N x M: meant for subsets.
    """
    check_pair(real, made)
    real, made = real.astype(np.float64), made.astype(np.float64)
    return _mean_within(real) + _mean_within(made) - 2 * float(cubic_kernel(real, made).mean())


def _mean_within(items: Features) -> float:
    """Mean of the kernel over pairs of different items."""
    matrix = cubic_kernel(items, items)
    count = len(items)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def cubic_kernel(left: Features, right: Features) -> Features:
    """(x . y / D + 1)^3 of each pair, (N, M), of features (N, D) and (M, D)."""
    affine = left @ right.T / left.shape[1] + 1  # (N, M)
    cube: Features = affine * affine * affine  # ** 3 would call pow
    return cube
