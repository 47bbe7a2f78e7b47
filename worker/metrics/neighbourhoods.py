"""Precision, recall, density and coverage: what lies within whose nearest neighbours."""

from typing import NamedTuple

import numpy as np

from worker.metrics.distances import squared_distances, squared_radii
from worker.metrics.samples import Features, Flags, Values, check_comparable

MANIFOLD_K = 3  # Kynkaanniemi et al. 2019, section 3
DENSITY_K = 5  # Naeem et al. 2020, section 4


class Neighbourhoods(NamedTuple):
    """One value for each item; the mean of an array is the metric, and higher is better."""

    precision: Flags  # of made: lies within the ball of some real item
    recall: Flags  # of real: lies within the ball of some made item
    density: Values  # of made: number of real balls that hold it / k; may exceed 1
    coverage: Flags  # of real: its ball holds some made item


def neighbourhoods(
    real: Features, made: Features, *, k: int = MANIFOLD_K, density_k: int = DENSITY_K
) -> Neighbourhoods:
    """The four metrics of real and made features (N, D) in one pass over the distances.

    An item's ball reaches to its k-th nearest neighbour among its own kind. Precision and recall:
    Kynkaanniemi et al. 2019, "Improved precision and recall metric for assessing generative
    models", arXiv:1904.06991, equations 1-3. Density and coverage: Naeem et al. 2020, "Reliable
    fidelity and diversity metrics for generative models", arXiv:2002.09797, equations 5 and 6.
    """
    check_comparable(real, made)
    real_radii, density_radii = squared_radii(real, (k, density_k))
    (made_radii,) = squared_radii(made, (k,))
    precise = np.zeros(len(made), np.bool_)
    counts = np.zeros(len(made), np.int64)
    recalled = np.empty(len(real), np.bool_)
    covered = np.empty(len(real), np.bool_)
    for rows, block in squared_distances(real, made):
        precise |= (block <= real_radii[rows, None]).any(axis=0)
        recalled[rows] = (block <= made_radii).any(axis=1)
        held = block <= density_radii[rows, None]
        counts += held.sum(axis=0)
        covered[rows] = held.any(axis=1)
    return Neighbourhoods(precise, recalled, counts / density_k, covered)
