"""Structural similarity of pictures.

Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity",
equation 13, with the paper's window: Gaussian, sigma 1.5, 11 x 11.
"""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from db.errors import Refused
from worker.metrics.samples import Values, blocks, generator

RADIUS = 5  # pixels; the window is 2 * RADIUS + 1 wide
SIGMA = 1.5
K1, K2 = 0.01, 0.03

Pictures = npt.NDArray[np.uint8]  # (N, H, W) or (N, H, W, C)
Maps = npt.NDArray[np.float64]


def ssim_diversity(pictures: Pictures, *, seed: int = 0) -> float:
    """1 - mean SSIM of random pairs of different pictures; higher is more diverse.

    Compare it with the value of real pictures: noise is diverse too.
    """
    return float(pair_dissimilarities(pictures, seed=seed).mean())


def pair_dissimilarities(pictures: Pictures, *, seed: int = 0) -> Values:
    """1 - SSIM of each picture and its successor in a random circle of all, (N,)."""
    if len(pictures) < 2:
        raise Refused(f"{len(pictures)} pictures have no pairs", remedy="use two or more")
    circle = generator(seed).permutation(len(pictures))
    return 1 - ssim(pictures[circle], pictures[np.roll(circle, -1)])


def ssim(left: Pictures, right: Pictures, *, data_range: float = 255.0) -> Values:
    """SSIM of each pair, (N,): 1 at equality; the mean over channels and whole windows.

    `data_range` is the difference between the largest and smallest possible pixel.
    """
    _check(left, right)
    row_bytes = 80 * int(np.prod(left.shape[1:]))  # about ten maps in float64
    parts = [_ssim(left[rows], right[rows], data_range) for rows in blocks(len(left), row_bytes)]
    return np.concatenate(parts) if parts else np.empty(0)


def _ssim(left: Pictures, right: Pictures, data_range: float) -> Values:
    x, y = left.astype(np.float64), right.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    scores: Values = similarity.reshape(len(left), -1).mean(axis=1)
    return scores


def _windowed(pictures: Maps) -> Maps:
    """Means in the Gaussian window where it fits whole: (N, H - 10, W - 10, ...)."""
    steps = np.arange(-RADIUS, RADIUS + 1)
    window = np.exp(-0.5 * (steps / SIGMA) ** 2)
    window /= window.sum()
    means = correlate1d(correlate1d(pictures, window, axis=1), window, axis=2)
    whole: Maps = means[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
    return whole


def _check(left: Pictures, right: Pictures) -> None:
    if left.shape != right.shape or left.ndim not in {3, 4}:
        raise Refused(
            f"SSIM of pictures of shapes {left.shape} and {right.shape}",
            remedy="compare pictures of one size, (N, H, W) or (N, H, W, C)",
        )
    if min(left.shape[1:3]) <= 2 * RADIUS:
        raise Refused(
            f"pictures of {left.shape[2]}x{left.shape[1]} are smaller than SSIM's window",
            remedy=f"use pictures of {2 * RADIUS + 1}x{2 * RADIUS + 1} pixels or more",
        )
