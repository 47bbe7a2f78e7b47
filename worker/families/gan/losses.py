"""The losses of the adversarial pair, by name: functions of the discriminator's scores, (B,)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom


class Loss(NamedTuple):
    """What each of the pair minimises, of the scores of real and of fake images, to a scalar."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


def _relativistic(real: Tensor, fake: Tensor) -> Tensor:
    """Jolicoeur-Martineau 2018, arXiv:1807.00734, the paired form of Huang et al. 2024, eq. 2.

    A pair shares its label, so that a class is judged against itself alone.
    """
    return F.softplus(fake - real).mean()


def _relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(real - fake).mean()


def _logistic(real: Tensor, fake: Tensor) -> Tensor:
    """Goodfellow et al. 2014, eq. 1."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _nonsaturating(_: Tensor, fake: Tensor) -> Tensor:
    """Goodfellow et al. 2014, section 3: maximise log D(G(z))."""
    return F.softplus(-fake).mean()


def _hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Lim and Ye 2017, arXiv:1705.02894, section 3."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _raise_score(_: Tensor, fake: Tensor) -> Tensor:
    return -fake.mean()


LOSSES = {
    "relativistic": Loss(_relativistic, _relativistic_generator),
    "nonsaturating": Loss(_logistic, _nonsaturating),
    "hinge": Loss(_hinge, _raise_score),
}


def r1_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Half the mean squared gradient of scores (B,) by real images (B, C, H, W), a scalar.

    Mescheder, Geiger, Nowozin 2018, arXiv:1801.04406, eq. 9, without its weight gamma.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() / 2


def energy_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Distance of two sets of points, (N, D) each: 2 E|x-y| - E|x-x'| - E|y-y'|, at least 2 points.

    0 in the mean where both are drawn alike, point by point with the same label, for which pairs of
    the same place are left out (Szekely and Rizzo 2013).
    """
    return 2 * _mean_distance(real, fake) - _mean_distance(real, real) - _mean_distance(fake, fake)


def _mean_distance(some: Tensor, others: Tensor) -> Tensor:
    """Mean distance of points at different places of two sets."""
    distances = torch.cdist(some, others)  # (N, N)
    count = max(2, len(some))
    return (distances.sum() - distances.diagonal().sum()) / (count * (count - 1))
