"""How likely an image is by what the decoder made: p(x|z)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from worker.data.dataset import Shape
from worker.families.vae import Params

HALF_STEP = 1 / 255  # half the distance of two neighbouring levels in [-1, 1]
SMALLEST_CHANCE = 1e-6  # of a pixel's draw: its logistic stays finite
NARROWEST = -7.0  # of the logistic's log scale, as Kingma et al. have it


class Bernoulli(nn.Module):
    """Pixels that are on or off; `made` holds logits, float32 (B, C, H, W).

    Not `binary`: the images are grey, and their brightness counts as a chance to be on.
    """

    def __init__(self, *, binary: bool) -> None:
        super().__init__()
        self.binary = binary

    def log_prob(self, made: Tensor, images: Tensor) -> Tensor:
        """The log p(x|z) of images in [-1, 1], (B,)."""
        targets = (images + 1) / 2
        return -F.binary_cross_entropy_with_logits(made, targets, reduction="none").sum((1, 2, 3))

    def mean(self, made: Tensor) -> Tensor:
        """The expected images, in [-1, 1]."""
        return 2 * torch.sigmoid(made) - 1

    def draw(self, made: Tensor, uniform: Tensor) -> Tensor:
        """Images by chance, from numbers in [0, 1); grey ones are as they are expected."""
        if not self.binary:
            return self.mean(made)
        return torch.where(uniform < torch.sigmoid(made), 1.0, -1.0)


class DiscretisedLogistic(nn.Module):
    """Pixels of 256 levels by a logistic around `made`, its log scale learnt for each channel.

    Kingma et al. 2016, arXiv:1606.04934, section 6; the levels at both ends take the tails, as in
    Salimans et al. 2017, arXiv:1701.05517, eq. 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((channels, 1, 1), -1.0))

    def log_prob(self, made: Tensor, images: Tensor) -> Tensor:
        """The log p(x|z) of images whose levels lie 2/255 apart in [-1, 1], (B,).

        The chance of a level is sigmoid(upper) - sigmoid(lower), which is
        sigmoid(upper) sigmoid(-lower) (1 - exp(lower - upper)): no difference of near numbers.
        """
        inverse = torch.exp(-self.log_scale.clamp(min=NARROWEST))  # (C, 1, 1)
        upper = inverse * (images - made + HALF_STEP)
        lower = inverse * (images - made - HALF_STEP)
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)  # of the two cumulative chances
        between = below + above + torch.log(-torch.expm1(-2 * HALF_STEP * inverse))
        darkest, brightest = images < HALF_STEP - 1, images > 1 - HALF_STEP
        chosen = torch.where(darkest, below, torch.where(brightest, above, between))
        return chosen.sum((1, 2, 3))

    def mean(self, made: Tensor) -> Tensor:
        """The expected images, in [-1, 1]."""
        return made.clamp(-1, 1)

    def draw(self, made: Tensor, uniform: Tensor) -> Tensor:
        """Images by chance, in [-1, 1], from numbers in [0, 1)."""
        logistic = torch.logit(uniform, eps=SMALLEST_CHANCE)
        return (made + self.log_scale.clamp(min=NARROWEST).exp() * logistic).clamp(-1, 1)


Likelihood = Bernoulli | DiscretisedLogistic


def likelihood(params: Params, shape: Shape) -> Likelihood:
    """The likelihood that the parameters name; by default grey pixels are Bernoulli's."""
    grey = shape.channels == 1 or params.binarise != "none"
    named = {"auto": "bernoulli" if grey else "logistic"}.get(params.likelihood, params.likelihood)
    if named == "bernoulli":
        return Bernoulli(binary=params.binarise != "none")
    return DiscretisedLogistic(shape.channels)
