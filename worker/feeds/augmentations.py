"""The augmentations that a dataset declares, applied to training batches and never to validation.

A declaration maps names to strengths. The random numbers are arguments, drawn by the feeds from
counter-based generators, so that a step's batch stays a pure function of (dataset, seed, step).
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
DRAWN = 3  # numbers that each augmentation of images may use


def augment_images(
    images: Images, declared: Mapping[str, float], generator: np.random.Generator
) -> Images:
    """Augment images (B, C, H, W) in [-1, 1].

    Each image draws its own numbers, the same ones whatever else is declared.
    """
    numbers = generator.random((len(IMAGES), len(images), DRAWN))
    for (name, augmentation), drawn in zip(IMAGES.items(), numbers, strict=True):
        if declared.get(name):
            images = augmentation(images, float(declared[name]), drawn)
    return images


def _flip(images: Images, share: float, drawn: Numbers) -> Images:
    """Mirror left and right; `share` 1 means half of the images."""
    mirrored = drawn[:, 0] < share / 2
    flipped: Images = np.where(mirrored[:, None, None, None], images[..., ::-1], images)
    return flipped


def _shift(images: Images, most: float, drawn: Numbers) -> Images:
    """Move by up to `most` whole pixels in each direction; edges are repeated."""
    height, width = images.shape[2:]
    down, right = np.floor(drawn[:, :2].T * (2 * int(most) + 1)) - int(most)
    rows = np.clip(np.arange(height) - down[:, None], 0, height - 1).astype(np.int64)
    columns = np.clip(np.arange(width) - right[:, None], 0, width - 1).astype(np.int64)
    return _pick(images, rows, columns)


def _crop(images: Images, most: float, drawn: Numbers) -> Images:
    """Cut a square out that is smaller by up to `most` pixels, and enlarge it (bilinear)."""
    size = images.shape[2]
    side = size - drawn[:, 0] * min(most, size - 1)
    grid = (np.arange(size) + 0.5) * (side / size)[:, None] - 0.5  # (B, H), from the corner
    rows, columns = (grid + (drawn[:, n] * (size - side))[:, None] for n in (1, 2))
    return _between(_between(images, rows).swapaxes(2, 3), columns).swapaxes(2, 3)


def _colour(images: Images, most: float, drawn: Numbers) -> Images:
    """Change brightness by up to `most` of the range's half, contrast and saturation in ratio."""
    brightness, contrast, saturation = (
        (2 * drawn[:, n, None, None, None] - 1) * most for n in range(3)
    )
    grey = images.mean(1, keepdims=True)
    images = grey + (images - grey) * (1 + saturation)
    mean = images.mean((1, 2, 3), keepdims=True)
    changed: Images = mean + (images - mean) * (1 + contrast) + brightness
    return changed.clip(-1, 1).astype(np.float32)


def _cutout(images: Images, side: float, drawn: Numbers) -> Images:
    """Set a square of `side` pixels to mid-grey, centred anywhere: DeVries, Taylor 2017."""
    height, width = images.shape[2:]
    first = np.floor(drawn[:, :2] * (height, width)) - side // 2
    down = (np.arange(height) - first[:, :1]) // side == 0
    across = (np.arange(width) - first[:, 1:2]) // side == 0
    hole = down[:, None, :, None] & across[:, None, None, :]
    cut: Images = np.where(hole, np.float32(0), images)
    return cut


# in the order in which they are applied
IMAGES: dict[str, Callable[[Images, float, Numbers], Images]] = {
    "flip": _flip,
    "crop": _crop,
    "shift": _shift,
    "colour": _colour,
    "cutout": _cutout,
}


def _pick(images: Images, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Images:
    """Rows (B, H) and columns (B, W) of each image."""
    each, channels = np.arange(len(images)), np.arange(images.shape[1])
    picked: Images = images[
        each[:, None, None, None],
        channels[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
    return picked


def _between(images: Images, places: Numbers) -> Images:
    """Rows at fractional places (B, H), by linear interpolation; edges are repeated."""
    last = images.shape[2] - 1
    below = np.clip(np.floor(places), 0, last).astype(np.int64)
    weight = np.clip(places - below, 0, 1).astype(np.float32)[:, None, :, None]
    every = np.broadcast_to(np.arange(images.shape[3]), (len(images), images.shape[3]))
    first, second = (_pick(images, at, every) for at in (below, np.minimum(below + 1, last)))
    return first + (second - first) * weight


def augment_sound(
    samples: npt.NDArray[np.int16],
    declared: Mapping[str, float],
    generator: np.random.Generator,
    *,
    rate: int,
) -> npt.NDArray[np.int16]:
    """Augment a sound, int16 (T,); its length stays the same.

    `time-shift`: by up to so many seconds, filled with silence; `gain`: by up to so many decibels;
    `noise`: white, its standard deviation as a share of full scale.
    """
    shift, gain = 2 * generator.random(2) - 1
    changed = samples.astype(np.float64)
    moved = round(shift * declared.get("time-shift", 0) * rate)
    changed = np.roll(changed, moved)
    changed[: max(moved, 0)] = 0
    changed[len(changed) + min(moved, 0) :] = 0
    changed *= 10 ** (gain * declared.get("gain", 0) / 20)
    if deviation := declared.get("noise", 0):
        changed += generator.standard_normal(len(changed)) * deviation * 2**15
    return np.clip(np.rint(changed), -(2**15), 2**15 - 1).astype(np.int16)
