"""The generator of an exported `gan` version in plain PyTorch: what a script would load.

Baselines use this class, so that no change to Genmill's own networks changes them.
"""

import itertools
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = "average."  # samples come from the moving average of the weights


class PlainGenerator(nn.Module):
    """DCGAN: project noise and class to 7x7, then double twice by transposed convolutions."""

    def __init__(self, latent: int, labels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.latent = latent
        self.embed = nn.Embedding(labels, latent)
        layers: list[nn.Module] = [
            nn.Linear(2 * latent, widths[0] * 7 * 7, bias=False),
            nn.Unflatten(1, (widths[0], 7, 7)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 1, 4, 2, 1), nn.Tanh())

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) in [-1, 1] from noise (B, latent) and labels (B,)."""
        images: Tensor = self.body(torch.cat([noise, self.embed(labels)], dim=1))
        return images


def load_generator(folder: Path) -> PlainGenerator:
    """The generator of `genmill model export`."""
    weights = {
        name.removeprefix(WEIGHTS): value
        for name, value in load_file(folder / "model.safetensors").items()
        if name.startswith(WEIGHTS)
    }
    labels, latent = weights["embed.weight"].shape
    made = PlainGenerator(latent, labels, (64, 32))
    made.load_state_dict(weights)
    return made.eval()


def to_bytes(images: Tensor) -> Tensor:
    """Grey levels uint8 (B, 28, 28) of images (B, 1, 28, 28) in [-1, 1]."""
    return ((images[:, 0] + 1) * 127.5).round().to(torch.uint8)
