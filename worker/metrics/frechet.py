"""Frechet distance between two sets of features, each taken as a Gaussian.

Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash
equilibrium", arXiv:1706.08500, equation 6.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker.metrics.samples import Features, Values, blocks, check_features, check_pair

# Below this many items the bias exceeds most differences; whoever asks decides what to do then.
FEWEST_ITEMS = 2_000

Matrix = npt.NDArray[np.float64]  # (D, D)


class Moments(NamedTuple):
    """Mean (D,) and unbiased covariance (D, D) of features."""

    mean: Values
    covariance: Matrix


def frechet_distance(real: Features, made: Features) -> float:
    """Squared Frechet distance of two feature sets (N, D) and (M, D); 0 at equality.

    Lower is better. Its bias grows as 1 / N: compare equal sample sizes only.
    """
    check_pair(real, made)
    return distance_of_moments(moments(real), moments(made))


def moments(features: Features) -> Moments:
    """Mean and covariance, summed in float64 in blocks of rows."""
    check_features(features)
    count, width = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for rows in blocks(count, 8 * width):
        centred = features[rows] - mean
        covariance += centred.T @ centred
    return Moments(mean, covariance / (count - 1))


def distance_of_moments(real: Moments, made: Moments) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    With C1 = F^T F the trace of the root is the sum of the roots of the eigenvalues of F C2 F^T,
    which is symmetric: no complex numbers, and no failure where a covariance is singular.
    """
    shift = real.mean - made.mean
    values, vectors = np.linalg.eigh(real.covariance)
    factor = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T  # F
    product = factor @ made.covariance @ factor.T
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2)
    root = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    spread = np.trace(real.covariance) + np.trace(made.covariance) - 2 * root
    return max(0.0, float(shift @ shift + spread))
