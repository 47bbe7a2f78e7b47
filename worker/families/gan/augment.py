"""DiffAugment: Zhao et al. 2020, arXiv:2006.10738, "Differentiable augmentation", section 3.

All of the discriminator's inputs, real and generated, are augmented at random and differentiably,
so that it cannot memorise a small dataset. Draws from torch's global generator.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

SHIFT = 1 / 8  # of the size, at most
HOLE = 1 / 2  # of the size


def augment(images: Tensor, policy: str) -> Tensor:
    """Augment images (B, C, H, W) by a policy: `none`, or names separated by commas."""
    for name in policy.split(","):
        if name != "none":
            images = AUGMENTATIONS[name](images)
    return images


def _color(images: Tensor) -> Tensor:
    """Shift brightness by -0.5 to 0.5; scale saturation by 0 to 2 and contrast by 0.5 to 1.5."""
    images = images + _uniform(images) - 0.5
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * 2 * _uniform(images)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.5 + _uniform(images))


def _translation(images: Tensor) -> Tensor:
    """Shift by up to an eighth of the size in each direction, padding with zeros."""
    count, channels, height, width = images.shape
    most = max(1, round(height * SHIFT))
    padded = F.pad(images, (most, most, most, most))
    rows = _place(count, 2 * most + 1, images) + torch.arange(height, device=images.device)
    columns = _place(count, 2 * most + 1, images) + torch.arange(width, device=images.device)
    padded = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, padded.shape[3]))
    return padded.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def _cutout(images: Tensor) -> Tensor:
    """Zero a square of half the size, which may extend beyond the edge."""
    count, _, height, width = images.shape
    hole = max(1, round(height * HOLE))
    rows = torch.arange(height, device=images.device) - _place(count, height + 1, images)
    columns = torch.arange(width, device=images.device) - _place(count, width + 1, images)
    half = hole // 2
    cut = ((rows >= -half) & (rows < hole - half))[:, None, :, None] & (
        (columns >= -half) & (columns < hole - half)
    )[:, None, None, :]  # (B, 1, H, W)
    return images * ~cut


AUGMENTATIONS = {"color": _color, "translation": _translation, "cutout": _cutout}


def _uniform(images: Tensor) -> Tensor:
    """Random numbers in [0, 1), one per image, (B, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, device=images.device)


def _place(count: int, high: int, images: Tensor) -> Tensor:
    """Random integers in [0, high), one per image, (B, 1)."""
    return torch.randint(high, (count, 1), device=images.device)
