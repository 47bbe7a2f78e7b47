"""Removes noise: from images by a median filter or non-local means, from sounds by spectral gating.

Sources: Buades, Coll, Morel 2005, "A non-local algorithm for image denoising"; spectral gating as
in Boll 1979, "Suppression of acoustic noise in speech using spectral subtraction".
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.cleaning.steps import Step

PATCH, SEARCH = 3, 7  # pixels a side: what is compared, and where alike patches are looked for
STRENGTH = 0.8  # of the noise's own deviation, within which patches count as alike
WINDOW, HOP = 512, 128  # samples of a frame, and from one to the next
QUIET = 0.1  # of the frames, the quietest, that show the noise
THRESHOLD, FLOOR = (
    2.0,
    0.1,
)  # times the noise below which a frequency is turned down; to what

Image = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.int16]


def find_filter(filters: Mapping[str, type[Step]], name: str, what: str) -> type[Step]:
    """The filter called `name`; `Refused` if there is none for `what`."""
    if name not in filters:
        raise Refused.unknown("way to denoise", name, filters, of=what)
    return filters[name]


class MedianFilter(Step):
    """The median of each pixel's 3x3 neighbours: against single wrong pixels."""

    name = "denoise"
    parameters: Mapping[str, Any] = {"method": "median", "size": 3}

    def __call__(self, content: Image) -> Image:
        """A uint8 (H, W, C) image, filtered channel by channel."""
        from scipy.ndimage import median_filter  # noqa: PLC0415 - with the next, rarely needed

        return np.asarray(median_filter(content, size=(3, 3, 1)), np.uint8)


class NonLocalMeans(Step):
    """The mean of the pixels whose surroundings look alike: against grain."""

    name = "denoise"
    parameters: Mapping[str, Any] = {
        "method": "nlm",
        "patch": PATCH,
        "search": SEARCH,
        "strength": STRENGTH,
    }

    def __call__(self, content: Image) -> Image:
        """A uint8 (H, W, C) image without grain."""
        from scipy.ndimage import uniform_filter  # noqa: PLC0415 - as above

        pixels = content.astype(np.float32)
        width = 2 * noise_of(pixels) ** 2 * STRENGTH**2
        if not width:
            return content
        reach = SEARCH // 2
        wide = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
        total, weights = np.zeros_like(pixels), np.zeros(pixels.shape[:2], np.float32)
        for down, right in itertools.product(range(SEARCH), repeat=2):
            moved = wide[down : down + pixels.shape[0], right : right + pixels.shape[1]]
            apart = uniform_filter(np.square(moved - pixels).mean(axis=2), PATCH)
            weight = np.exp(-np.maximum(apart - width, 0) / width)
            total += weight[..., None] * moved
            weights += weight
        return np.asarray(np.rint(total / weights[..., None]), np.uint8)


def noise_of(pixels: npt.NDArray[np.float32]) -> float:
    """The standard deviation of an image's noise (Immerkaer 1996, fast noise variance).

    Zero for less than three pixels a side, of which nothing can be told.
    """
    if min(pixels.shape[:2]) < 3:
        return 0.0
    rows = pixels[:-2] - 2 * pixels[1:-1] + pixels[2:]
    both = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.sqrt(np.pi / 2) * np.abs(both).mean() / 6)


class SpectralGate(Step):
    """Turns down the frequencies that are no louder than in the quietest moments."""

    name = "denoise"
    parameters: Mapping[str, Any] = {"method": "spectral", "threshold": THRESHOLD, "floor": FLOOR}

    def __call__(self, content: Sound) -> Sound:
        """An int16 (T,) sound without steady noise."""
        from scipy.signal import istft, stft  # noqa: PLC0415 - as above

        if len(content) < 2 * WINDOW:
            return content
        frames = {"nperseg": WINDOW, "noverlap": WINDOW - HOP}
        _, _, spectrum = stft(content.astype(np.float64), **frames)
        level = np.abs(spectrum)
        quiet = np.argsort(level.sum(axis=0))[: max(1, int(QUIET * level.shape[1]))]
        noise = level[:, quiet].mean(axis=1, keepdims=True)
        _, cleaned = istft(np.where(level > THRESHOLD * noise, 1, FLOOR) * spectrum, **frames)
        return np.asarray(np.clip(np.rint(cleaned[: len(content)]), -32768, 32767), np.int16)
