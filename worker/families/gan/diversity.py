"""Comparing generated with real images in pixel space, and detecting mode collapse."""

from collections.abc import Mapping

import torch
from torch import Tensor

COLLAPSED = (
    0.25  # of the real images' diversity; healthy runs stayed above 0.4 once past the first steps
)
# before both, a generator is not judged: steps, and steps times the learning rate
FIRST_STEPS, FIRST_DISTANCE = 300, 0.5


def energy_distance(real: Tensor, fake: Tensor) -> Tensor:
    """2 E|x-y| - E|x-x'| - E|y-y'| of two sets of at least 2 points, (N, D) each.

    Szekely and Rizzo 2013. Points i of both sets share a label, so pairs (i, i) are left out
    everywhere: the expectation is then 0 if both sets have the same distribution.
    """
    return 2 * _mean_distance(real, fake) - _mean_distance(real, real) - _mean_distance(fake, fake)


def diversity(real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
    """Mean distance between two fakes (N, D), divided by that between two real points.

    Only pairs with equal labels count if labels (N,) are given and any two are equal. About 1 if
    both have the same distribution, 0 if all fakes are identical, 1 if all real points are.
    """
    pairs = ~torch.eye(len(real), dtype=torch.bool, device=real.device)  # (N, N)
    if labels is not None and bool((same := pairs & (labels[:, None] == labels)).any()):
        pairs = same
    between_real = torch.cdist(real, real)[pairs].sum()
    if not bool(between_real > 0):
        return torch.ones_like(between_real)
    return torch.cdist(fake, fake)[pairs].sum() / between_real


def judged_after(lr: float) -> int:
    """Steps before a generator is judged; each moves a weight by about `lr` (Adam)."""
    return max(FIRST_STEPS, round(FIRST_DISTANCE / lr))


def find_collapse(losses: Mapping[str, float], step: int, lr: float) -> str | None:
    """Describe the mode collapse that a validation after `step` steps shows; None if none."""
    found, first = losses["diversity"], judged_after(lr)
    if step < first or found >= COLLAPSED:
        return None
    return (
        f"mode collapse: the diversity of samples is {found:.3f} of that of real images "
        f"(after {first} steps at least {COLLAPSED} is expected); the discriminator's accuracy is "
        f"{losses['accuracy']:.0%}"
    )


def _mean_distance(some: Tensor, others: Tensor) -> Tensor:
    """Mean distance between points i and j != i of two sets."""
    distances = torch.cdist(some, others)  # (N, N)
    count = max(2, len(some))
    return (distances.sum() - distances.diagonal().sum()) / (count * (count - 1))
