"""The Frechet distance of two image sets by the judge's features: Heusel et al. 2017, eq. 6."""

import numpy as np
import torch
from torch import nn

from tests.results.classifier import as_input


@torch.inference_mode()
def features(network: nn.Sequential, images: np.ndarray) -> np.ndarray:
    """The judge's 64 penultimate features, float64 (N, 64), of uint8 (N, 28, 28) images."""
    body = network[:-1]
    parts = [body(as_input(images[i : i + 1000])) for i in range(0, len(images), 1000)]
    return torch.cat(parts).double().numpy()


def frechet_distance(some: np.ndarray, others: np.ndarray) -> float:
    """Between Gaussians with the means and covariances of features (N, D) and (M, D)."""
    apart = some.mean(0) - others.mean(0)
    first, second = (np.cov(points, rowvar=False) for points in (some, others))
    # up to rounding, the eigenvalues of a product of covariances are real and not negative
    roots = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0))
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * roots.sum())
