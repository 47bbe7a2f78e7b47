"""The baseline of the GAN: a DCGAN trained as in the original paper.

Radford, Metz, Chintala 2015, arXiv:1511.06434, sections 3 and 4: unconditional, batch norm, ReLU
and leaky ReLU 0.2, weights from N(0, 0.02), Adam at 2e-4 with beta1 0.5, batches of 128, images
in [-1, 1]; the paper's stack of stride-2 convolutions from 4x4 up, at 28x28 by 4, 7, 14, 28 with
4, 2 and 1 times the width in channels. It shares no code with the families.
"""

import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.results.classifier import as_input

LATENT, BATCH = 100, 128


def new_generator(width: int) -> nn.Sequential:
    """Noise (B, 100, 1, 1) to images (B, 1, 28, 28) in [-1, 1]."""
    return nn.Sequential(
        nn.ConvTranspose2d(LATENT, 4 * width, 4, bias=False),  # 4x4
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, bias=False),  # 7x7
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),  # 14x14
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, 2, 1),  # 28x28
        nn.Tanh(),
    )


def new_discriminator(width: int) -> nn.Sequential:
    """Images (B, 1, 28, 28) to scores (B, 1), high for real."""
    return nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1),  # 14x14
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),  # 7x7
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=False),  # 4x4
        nn.BatchNorm2d(4 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4 * width, 1, 4),  # 1x1
        nn.Flatten(),
    )


def train_dcgan(
    images: np.ndarray, *, seconds: float, seed: int, width: int = 64
) -> tuple[nn.Sequential, int]:
    """Train on uint8 (N, 28, 28) for `seconds`; return the generator and the number of steps.

    `width`: channels at 14x14; the paper's smallest layer has 128 of them, the usual code 64.
    """
    torch.manual_seed(seed)
    generator, discriminator = new_generator(width), new_discriminator(width)
    for network in (generator, discriminator):
        network.apply(_initialise)
    adams = [
        torch.optim.Adam(network.parameters(), 2e-4, betas=(0.5, 0.999))
        for network in (generator, discriminator)
    ]
    began, steps = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        real = as_input(images[torch.randint(len(images), (BATCH,)).numpy()])
        _step(generator, discriminator, adams, real)
        steps += 1
    return generator.eval(), steps


@torch.inference_mode()
def sample_dcgan(generator: nn.Module, count: int, *, seed: int) -> np.ndarray:
    """Images uint8 (count, 28, 28), in evaluation mode; `count` in whole hundreds."""
    torch.manual_seed(seed)
    made = [generator(torch.randn(100, LATENT, 1, 1)) for _ in range(count // 100)]
    return torch.cat(made).add(1).mul(127.5).round().to(torch.uint8)[:, 0].numpy()


def _step(
    generator: nn.Module,
    discriminator: nn.Module,
    adams: list[torch.optim.Adam],
    real: Tensor,
) -> None:
    """One update of the discriminator and one of the generator, with the non-saturating loss."""
    fake = generator(torch.randn(len(real), LATENT, 1, 1))
    loss = _cross_entropy(discriminator(real), 1) + _cross_entropy(discriminator(fake.detach()), 0)
    adams[1].zero_grad()
    loss.backward()
    adams[1].step()
    loss = _cross_entropy(discriminator(fake), 1)
    adams[0].zero_grad()
    loss.backward()
    adams[0].step()


def _cross_entropy(scores: Tensor, wanted: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, wanted))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
