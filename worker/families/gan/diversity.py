"""How made images stand to real ones, in pixels, and when they have collapsed to a few."""

from collections.abc import Mapping

import torch
from torch import Tensor

COLLAPSED = 0.25  # of the real images' diversity; no sound run fell below 0.4 once formed
FIRST_STEPS, FIRST_WAY = 300, 0.5  # within either, a generator is not yet formed


def energy_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Distance of two sets of points, (N, D) each: 2 E|x-y| - E|x-x'| - E|y-y'|, at least 2 points.

    0 in the mean where both are drawn alike, point by point with the same label, for which pairs of
    the same place are left out (Szekely and Rizzo 2013).
    """
    return 2 * _mean_distance(real, fake) - _mean_distance(real, real) - _mean_distance(fake, fake)


def diversity(real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
    """Mean distance of two fakes (N, D) over that of two real points with the same labels.

    Pairs are of one label where labels (N,) are given and some two are alike. About 1 where both
    are drawn alike, 0 where all fakes are one, and 1 where there is nothing to compare.
    """
    pairs = ~torch.eye(len(real), dtype=torch.bool, device=real.device)  # (N, N)
    if labels is not None and bool((alike := pairs & (labels[:, None] == labels)).any()):
        pairs = alike
    between_real = torch.cdist(real, real)[pairs].sum()
    if not bool(between_real > 0):
        return torch.ones_like(between_real)
    return torch.cdist(fake, fake)[pairs].sum() / between_real


def judged_after(lr: float) -> int:
    """Steps at a rate after which a generator is formed: Adam moves a weight by `lr` each."""
    return max(FIRST_STEPS, round(FIRST_WAY / lr))


def find_collapse(losses: Mapping[str, float], step: int, lr: float) -> str | None:
    """The reason, with its numbers, why a validation after `step` steps shows mode collapse.

    None where it shows none.
    """
    found, first = losses["diversity"], judged_after(lr)
    if step < first or found >= COLLAPSED:
        return None
    return (
        f"mode collapse: two samples of a label differ by {found:.3f} of what two real images "
        f"do (at least {COLLAPSED} is expected after {first} steps); the discriminator tells "
        f"{losses['accuracy']:.0%} of pairs apart"
    )


def _mean_distance(some: Tensor, others: Tensor) -> Tensor:
    """Mean distance of points at different places of two sets."""
    distances = torch.cdist(some, others)  # (N, N)
    count = max(2, len(some))
    return (distances.sum() - distances.diagonal().sum()) / (count * (count - 1))
