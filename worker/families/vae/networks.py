"""Encoder and decoder, convolutional and MLP.

Labels are weights (B, classes): one-hot, or a mixture of two classes in an interpolation.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from worker.data.dataset import Shape
from worker.families.vae import Params
from worker.networks.images import ladder


class Encoder(nn.Module):
    """From images (B, C, H, W) and labels to mean and log variance of codes, (B, latent) each."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        make = _conv_encoder if params.arch == "conv" else _mlp_encoder
        self.body, width = make(params, shape)
        self.hidden = nn.Linear(width, params.hidden)
        self.label = _label(params, shape)
        self.code = nn.Linear(params.hidden, 2 * params.latent)

    def forward(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encode images; returns float32."""
        hidden = self.hidden(self.body(images))  # (B, hidden)
        if self.label is not None:
            hidden = hidden + self.label(labels)
        mean, log_variance = self.code(F.silu(hidden)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 6)


class Decoder(nn.Module):
    """From codes (B, latent) and labels to the likelihood's parameters, float32 (B, C, H, W)."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        make = _conv_decoder if params.arch == "conv" else _mlp_decoder
        self.code = nn.Linear(params.latent, params.hidden)
        self.label = _label(params, shape)
        self.body = make(params, shape)

    def forward(self, code: Tensor, labels: Tensor | None) -> Tensor:
        """Decode codes."""
        hidden = self.code(code)  # (B, hidden)
        if self.label is not None:
            hidden = hidden + self.label(labels)
        images: Tensor = self.body(F.silu(hidden))
        return images.float()


class Residual(nn.Module):
    """A pre-normalised residual dense layer (layer norm: Ba et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dense = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, width) to the same."""
        return hidden + F.silu(self.dense(self.norm(hidden)))


def _label(params: Params, shape: Shape) -> nn.Linear | None:
    return nn.Linear(len(shape.labels), params.hidden, bias=False) if shape.labels else None


def _conv_encoder(params: Params, shape: Shape) -> tuple[nn.Sequential, int]:
    """Halve down to base x base by strided convolutions."""
    base, doublings = ladder(shape.size).base, ladder(shape.size).doublings
    wide = [shape.channels, *(params.channels * 2**i for i in range(doublings))]
    layers: list[nn.Module] = []
    for before, after in pairwise(wide):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.SiLU()]
    return nn.Sequential(*layers, nn.Flatten()), wide[-1] * base * base


def _conv_decoder(params: Params, shape: Shape) -> nn.Sequential:
    """Project to base x base, then double by transposed convolutions."""
    base, doublings = ladder(shape.size).base, ladder(shape.size).doublings
    wide = [params.channels * 2**i for i in reversed(range(doublings))]  # coarse to fine
    layers: list[nn.Module] = [
        nn.Linear(params.hidden, wide[0] * base * base),
        nn.SiLU(),
        nn.Unflatten(1, (wide[0], base, base)),
    ]
    for before, after in pairwise(wide):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.SiLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(wide[-1], shape.channels, 4, 2, 1))


def _mlp_encoder(params: Params, shape: Shape) -> tuple[nn.Sequential, int]:
    hidden = params.hidden
    body = nn.Sequential(
        nn.Flatten(),
        nn.Linear(shape.channels * shape.size**2, hidden),
        nn.SiLU(),
        *_residuals(params),
    )
    return body, hidden


def _mlp_decoder(params: Params, shape: Shape) -> nn.Sequential:
    return nn.Sequential(
        *_residuals(params),
        nn.Linear(params.hidden, shape.channels * shape.size**2),
        nn.Unflatten(1, (shape.channels, shape.size, shape.size)),
    )


def _residuals(params: Params) -> list[nn.Module]:
    stack = [Residual(params.hidden) for _ in range(params.layers)]
    return [*stack, nn.LayerNorm(params.hidden)]
