"""The losses of generator and discriminator, by name, and gradient penalties."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom


class Loss(NamedTuple):
    """The losses of both networks: from scores (B,) of real and of fake images to a scalar."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


def _relativistic(real: Tensor, fake: Tensor) -> Tensor:
    """Jolicoeur-Martineau 2018, arXiv:1807.00734, the paired form of Huang et al. 2024, eq. 2.

    The two images of a pair share a label, so that a class is only compared with itself.
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


def _critic(real: Tensor, fake: Tensor) -> Tensor:
    """Arjovsky, Chintala, Bottou 2017, arXiv:1701.07875, eq. 3."""
    return fake.mean() - real.mean()


def _raise_score(_: Tensor, fake: Tensor) -> Tensor:
    return -fake.mean()


LOSSES = {
    "nonsaturating": Loss(_logistic, _nonsaturating),
    "hinge": Loss(_hinge, _raise_score),
    "wgan-gp": Loss(_critic, _raise_score),
    "relativistic": Loss(_relativistic, _relativistic_generator),
}


def slope_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Half the mean squared gradient norm of scores (B,) by images (B, C, H, W), a scalar.

    Mescheder, Geiger, Nowozin 2018, arXiv:1801.04406, eq. 9 (R1, on real images) and eq. 10 (R2, on
    generated ones), without the weight gamma.
    """
    return _gradients(scores, images).square().sum(1).mean() / 2


def unit_slope_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """WGAN-GP's penalty: mean (|gradient of `score`| - 1)^2 between real and fake (B, C, H, W).

    Gulrajani et al. 2017, arXiv:1704.00028, eq. 3, without the weight lambda.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(real, fake, share).detach().requires_grad_()
    # the epsilon keeps the root's gradient finite where the slope is 0
    slopes = (_gradients(score(between), between).square().sum(1) + 1e-12).sqrt()  # (B,)
    return (slopes - 1).square().mean()


def _gradients(scores: Tensor, images: Tensor) -> Tensor:
    """The gradient of each score by its image, float32 (B, C * H * W), differentiable itself."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.float().flatten(1)
