"""Likelihoods p(x|z) of images, given the decoder's output."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from worker.data.dataset import Shape
from worker.families.vae import Params

HALF_STEP = 1 / 255  # half the distance between two levels in [-1, 1]
LOGIT_EPS = 1e-6  # keeps the logit of a uniform draw finite
MIN_LOG_SCALE = -7.0  # as in the code of Kingma et al.


class Bernoulli(nn.Module):
    """Bernoulli pixels; `outputs` are logits, float32 (B, C, H, W).

    Unless `binary`, images are grey and their brightness is the probability of being on.
    """

    def __init__(self, *, binary: bool) -> None:
        super().__init__()
        self.binary = binary

    def log_prob(self, outputs: Tensor, images: Tensor) -> Tensor:
        """The log p(x|z) of images in [-1, 1], (B,)."""
        targets = (images + 1) / 2
        return -F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(
            (1, 2, 3)
        )

    def mean(self, outputs: Tensor) -> Tensor:
        """The expected images, in [-1, 1]."""
        return 2 * torch.sigmoid(outputs) - 1

    def draw(self, outputs: Tensor, uniform: Tensor) -> Tensor:
        """Sample images from uniform numbers in [0, 1); the expected images unless `binary`."""
        if not self.binary:
            return self.mean(outputs)
        return torch.where(uniform < torch.sigmoid(outputs), 1.0, -1.0)


class DiscretisedLogistic(nn.Module):
    """Pixels of 256 levels, logistic with mean `outputs` and a learnt scale per channel.

    Kingma et al. 2016, arXiv:1606.04934, section 6; the outermost levels take the tails, as in
    Salimans et al. 2017, arXiv:1701.05517, eq. 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((channels, 1, 1), -1.0))

    def log_prob(self, outputs: Tensor, images: Tensor) -> Tensor:
        """The log p(x|z) of images whose levels lie 2/255 apart in [-1, 1], (B,).

        A level's probability sigmoid(upper) - sigmoid(lower) is computed as
        sigmoid(upper) sigmoid(-lower) (1 - exp(lower - upper)), which avoids cancellation.
        """
        inverse = torch.exp(-self.log_scale.clamp(min=MIN_LOG_SCALE))  # (C, 1, 1)
        upper = inverse * (images - outputs + HALF_STEP)
        lower = inverse * (images - outputs - HALF_STEP)
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        between = below + above + torch.log(-torch.expm1(-2 * HALF_STEP * inverse))
        darkest, brightest = images < HALF_STEP - 1, images > 1 - HALF_STEP
        chosen = torch.where(darkest, below, torch.where(brightest, above, between))
        return chosen.sum((1, 2, 3))

    def mean(self, outputs: Tensor) -> Tensor:
        """The expected images, in [-1, 1]."""
        return outputs.clamp(-1, 1)

    def draw(self, outputs: Tensor, uniform: Tensor) -> Tensor:
        """Sample images in [-1, 1] from uniform numbers in [0, 1)."""
        logistic = torch.logit(uniform, eps=LOGIT_EPS)
        return (outputs + self.log_scale.clamp(min=MIN_LOG_SCALE).exp() * logistic).clamp(-1, 1)


Likelihood = Bernoulli | DiscretisedLogistic


def likelihood(params: Params, shape: Shape) -> Likelihood:
    """The likelihood that the parameters name."""
    grey = shape.channels == 1 or params.binarise != "none"
    named = {"auto": "bernoulli" if grey else "logistic"}.get(params.likelihood, params.likelihood)
    if named == "bernoulli":
        return Bernoulli(binary=params.binarise != "none")
    return DiscretisedLogistic(shape.channels)
