"""Parts that image families share: sizes reached by doubling, and conversion to pixels."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from db.errors import NonFinite, Refused

SMALLEST, LARGEST = 3, 7  # sides of a ladder's base


@dataclass(frozen=True)
class Ladder:
    """An image size, which is `base` doubled `doublings` times: 28 = 7 * 2 * 2."""

    base: int
    doublings: int


def ladder(size: int, largest: int = LARGEST) -> Ladder:
    """A size as a base of at most `largest`, doubled; `Refused` where that is impossible."""
    base, doublings = size, 0
    while base > largest and base % 2 == 0:
        base, doublings = base // 2, doublings + 1
    if not (SMALLEST <= base <= largest and doublings):
        raise Refused(
            f"images of {size}x{size} do not halve down to a side of {SMALLEST} to {largest}",
            remedy="add the dataset with --size 28, 32 or 64",
        )
    return Ladder(base, doublings)


def to_pixels(images: Tensor) -> list[npt.NDArray[np.uint8]]:
    """Convert images in [-1, 1], float (B, C, H, W), to B arrays of uint8 (H, W, C).

    Raises `NonFinite` where a number is NaN or infinite.
    """
    images = images.float()
    if not all(torch.isfinite(bound) for bound in torch.aminmax(images)):
        raise NonFinite("the network's images hold NaN or infinite numbers")
    scaled = (images + 1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    rows: npt.NDArray[np.uint8] = scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return list(rows)
