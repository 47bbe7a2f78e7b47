"""The encoder and the decoder, convolutional and MLP.

Labels come as weights (B, classes): one 1 a row, or between two images a mixture of their classes.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from worker.data.dataset import Shape
from worker.families.vae import Params
from worker.networks.images import ladder


class Encoder(nn.Module):
    """Images (B, C, H, W) and labels to mean and log variance of the code, (B, latent) each."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        make = _reading_convolutions if params.arch == "conv" else _reading_layers
        self.body, width = make(params, shape)
        self.hidden = nn.Linear(width, params.hidden)
        self.label = _label(params, shape)
        self.code = nn.Linear(params.hidden, 2 * params.latent)

    def forward(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Read images; what it returns is float32."""
        hidden = self.hidden(self.body(images))  # (B, hidden)
        if self.label is not None:
            hidden = hidden + self.label(labels)
        mean, log_variance = self.code(F.silu(hidden)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 6)


class Decoder(nn.Module):
    """Codes (B, latent) and labels to what a likelihood takes, float32 (B, C, H, W)."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        make = _convolutions if params.arch == "conv" else _layers
        self.code = nn.Linear(params.latent, params.hidden)
        self.label = _label(params, shape)
        self.body = make(params, shape)

    def forward(self, code: Tensor, labels: Tensor | None) -> Tensor:
        """Make images."""
        hidden = self.code(code)  # (B, hidden)
        if self.label is not None:
            hidden = hidden + self.label(labels)
        images: Tensor = self.body(F.silu(hidden))
        return images.float()


class Residual(nn.Module):
    """A dense layer beside a straight path, normalised before (Ba et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dense = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Add to what comes in, (B, width)."""
        return hidden + F.silu(self.dense(self.norm(hidden)))


def _label(params: Params, shape: Shape) -> nn.Linear | None:
    return nn.Linear(len(shape.labels), params.hidden, bias=False) if shape.labels else None


def _reading_convolutions(params: Params, shape: Shape) -> tuple[nn.Sequential, int]:
    """Halvings down to base x base."""
    base, doublings = ladder(shape.size).base, ladder(shape.size).doublings
    wide = [shape.channels, *(params.channels * 2**i for i in range(doublings))]
    layers: list[nn.Module] = []
    for before, after in pairwise(wide):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.SiLU()]
    return nn.Sequential(*layers, nn.Flatten()), wide[-1] * base * base


def _convolutions(params: Params, shape: Shape) -> nn.Sequential:
    """A projection to base x base, then doublings by transposed convolution."""
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


def _reading_layers(params: Params, shape: Shape) -> tuple[nn.Sequential, int]:
    hidden = params.hidden
    body = nn.Sequential(
        nn.Flatten(), nn.Linear(_pixels(shape), hidden), nn.SiLU(), *_residuals(params)
    )
    return body, hidden


def _layers(params: Params, shape: Shape) -> nn.Sequential:
    return nn.Sequential(
        *_residuals(params),
        nn.Linear(params.hidden, _pixels(shape)),
        nn.Unflatten(1, (shape.channels, shape.size, shape.size)),
    )


def _residuals(params: Params) -> list[nn.Module]:
    stack = [Residual(params.hidden) for _ in range(params.layers)]
    return [*stack, nn.LayerNorm(params.hidden)]


def _pixels(shape: Shape) -> int:
    return shape.channels * shape.size**2
