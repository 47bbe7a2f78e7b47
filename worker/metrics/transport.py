"""Optimal transport between two sets of features of equal size.

In one dimension the optimal plan pairs the sorted values, so a distance averaged over random
directions (Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures") costs sorts
alone.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from worker.metrics.samples import (
    Features,
    Values,
    blocks,
    check_comparable,
    generator,
)

PROJECTIONS = 1_000
LARGEST_EXACT = 2_000  # items; the exact plan takes time in N^3

Directions = npt.NDArray[np.float64]  # (K, D), rows of length 1


def monge_distance(
    real: Features, made: Features, *, projections: int = PROJECTIONS, seed: int = 0
) -> float:
    """MIND: 3 D times the mean over directions of the squared 2-Wasserstein distance.

    Berthet et al. 2026, "MIND: Monge Inception Distance for generative models evaluation",
    arXiv:2605.06797. Lower is better; 0 at equality. `real` and `made` are (N, D).
    """
    check_comparable(real, made)
    squares = along_directions(real, made, power=2, projections=projections, seed=seed)
    return float(3 * real.shape[1] * squares.mean())


def earth_movers_distance(
    real: Features, made: Features, *, projections: int = PROJECTIONS, seed: int = 0
) -> float:
    """1-Wasserstein distance with Euclidean cost: exact up to `LARGEST_EXACT` items, else sliced.

    In units of the features; lower is better; 0 at equality. `real` and `made` are (N, D).
    """
    if len(real) <= LARGEST_EXACT:
        return exact_distance(real, made)
    return sliced_distance(real, made, projections=projections, seed=seed)


def exact_distance(real: Features, made: Features) -> float:
    """1-Wasserstein distance by the optimal one-to-one assignment; memory in N^2."""
    check_comparable(real, made)
    costs = cdist(real, made)
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())


def sliced_distance(
    real: Features, made: Features, *, projections: int = PROJECTIONS, seed: int = 0
) -> float:
    """Sliced 1-Wasserstein distance, divided by `mean_projection`.

    So it has the scale of the exact distance, whatever the width: if one set is the other one
    shifted, both are the length of the shift, but for the error of finitely many directions.
    """
    check_comparable(real, made)
    gaps = along_directions(real, made, power=1, projections=projections, seed=seed)
    return float(gaps.mean()) / mean_projection(real.shape[1])


def mean_projection(width: int) -> float:
    """Mean of |u . e| over directions u on the unit sphere in `width` dimensions."""
    logs = math.lgamma(width / 2) - math.lgamma((width + 1) / 2)
    return math.exp(logs) / math.sqrt(math.pi)


def along_directions(
    real: Features, made: Features, *, power: int, projections: int, seed: int
) -> Values:
    """Mean of |sorted real - sorted made|^power along each random direction, (projections,)."""
    real, made = real.astype(np.float64), made.astype(np.float64)
    directions = random_directions(projections, real.shape[1], seed)
    means = []
    for some in blocks(projections, 8 * len(real)):
        gaps = _sorted_along(real, directions[some]) - _sorted_along(made, directions[some])
        means.append((np.abs(gaps) ** power).mean(axis=1))
    return np.concatenate(means)


def random_directions(count: int, width: int, seed: int) -> Directions:
    """Uniform directions on the unit sphere, (count, width)."""
    directions = generator(seed).standard_normal((count, width))
    scaled: Directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return scaled


def _sorted_along(features: Features, directions: Directions) -> Features:
    """Projections on each direction, (K, N), every row sorted."""
    projected: Features = directions @ features.T
    projected.sort(axis=1)
    return projected
