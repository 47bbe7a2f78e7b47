"""Near-duplicate images: shifted by a pixel or two, encoded again, slightly brighter.

A perceptual hash alone does not do for small drawings: on MNIST a shift by one pixel changes 10 of
the 64 bits, and so few differ between many pairs of different digits. So every image is also looked
up as it would be if shifted, which costs one product of matrices, and what is found is confirmed on
the pixels themselves. The hash is that of ImageHash's `phash` (Zauner 2010: the lowest frequencies
of the DCT against their median), computed for many images at once.
"""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from worker.cleaning.alike import Keys, Likeness, Pairs, near_pairs

SIDE = 8  # frequencies in each direction, of the hash that candidates are found by
BITS = 4  # of its 64 bits that may differ after the shift
FINE_SIDE = 16  # of the hash that they are sifted by
FINE_BITS = 32  # of its 256 bits; no true pair of MNIST or CIFAR-10 had more than 26
SHIFT = 2  # pixels in each direction that a pair may be apart
DISTANCE = 0.15  # root mean square difference to contrast, at the best shift
MIN_CONTRAST = 8.0  # standard deviation in levels of 255; flatter images are compared with it
_BLOCK = 1 << 20  # pixels at once

Images = npt.NDArray[np.uint8]  # (N, S, S, C)
# one of each two opposite directions, as each pair is looked up from both of its images
SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))


class AlikeImages(Likeness):
    """Images whose hash is near that of another, as it is or shifted, and whose pixels agree.

    Takes 80 bytes an image.
    """

    parameters: ClassVar[dict[str, Any]] = {
        "hash": "phash",
        "bits": BITS,
        "fine_bits": FINE_BITS,
        "shift": SHIFT,
        "distance": DISTANCE,
    }

    def __init__(self, images: Images) -> None:
        self._images = images

    def candidates(self) -> Iterator[Pairs]:
        """Pairs whose hashes are near after one of the `SHIFTS`."""
        coarse, fine = perceptual_hashes(self._images)
        for shift in SHIFTS:
            moved, fine_moved = perceptual_hashes(self._images, shift)
            for pairs in near_pairs(coarse, moved, bits=BITS):
                apart = np.bitwise_count(fine[pairs[:, 0]] ^ fine_moved[pairs[:, 1]])
                yield pairs[apart.sum(axis=1) <= FINE_BITS]

    def alike(self, pairs: Pairs) -> npt.NDArray[np.bool_]:
        """Whether the pixels of each pair agree within `DISTANCE`."""
        step = _block(self._images)
        blocks = [self._alike(pairs[first : first + step]) for first in range(0, len(pairs), step)]
        return np.concatenate([np.zeros(0, bool), *blocks])

    def _alike(self, pairs: Pairs) -> npt.NDArray[np.bool_]:
        one, other = (self._images[pairs[:, side]].astype(np.float32) for side in (0, 1))
        best = np.full(len(pairs), np.inf, np.float32)
        for down, right in itertools.product(range(-SHIFT, SHIFT + 1), repeat=2):
            best = np.minimum(best, _distance(one, other, down, right))
        return best <= DISTANCE


def perceptual_hashes(images: Images, shift: tuple[int, int] = (0, 0)) -> tuple[Keys, Keys]:
    """The hashes of images that are moved down and right: (N,) of 64 bits, (N, 4) of 256 bits."""
    left, right = (_frequencies(images.shape[1]) @ _moving(images.shape[1], step) for step in shift)
    coarse, fine = np.empty(len(images), np.uint64), np.empty((len(images), 4), np.uint64)
    rows = _block(images)
    for first in range(0, len(images), rows):
        block = slice(first, first + rows)
        grey = images[block].mean(axis=3, dtype=np.float32)
        low = left @ grey @ right.T
        coarse[block], fine[block] = _bits(low[:, :SIDE, :SIDE])[:, 0], _bits(low)
    return coarse, fine


def hashes_of(grey: npt.NDArray[np.float32]) -> tuple[np.uint64, Keys]:
    """The hashes of 64 and of 256 bits of one grey image (S, S)."""
    rows = _frequencies(len(grey))
    low = np.asarray(rows @ grey @ rows.T, np.float32)[None]
    return np.uint64(_bits(low[:, :SIDE, :SIDE])[0, 0]), _bits(low)[0]


def _block(images: Images) -> int:
    return max(1, _BLOCK // max(1, images[:1].size))


def _bits(low: npt.NDArray[np.float32]) -> Keys:
    """Which frequencies are above their median, as words of 64 bits."""
    flat = low.reshape(len(low), -1)
    packed = np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1)
    return packed.view(">u8").astype(np.uint64)


def _frequencies(side: int) -> npt.NDArray[np.float32]:
    """The lowest rows of the DCT-II of `side` points, (FINE_SIDE, side)."""
    points = (2 * np.arange(side) + 1) * np.pi / (2 * side)
    return np.asarray(2 * np.cos(np.arange(FINE_SIDE)[:, None] * points), np.float32)


def _moving(side: int, step: int) -> npt.NDArray[np.float32]:
    """The matrix that moves `side` points by `step`, repeating the last point at the edge."""
    return np.eye(side, dtype=np.float32)[np.clip(np.arange(side) - step, 0, side - 1)]


def _distance(
    one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], down: int, right: int
) -> npt.NDArray[np.float32]:
    """The distance of images (M, S, S, C) to others moved, relative to the contrast; (M,)."""
    height, width = one.shape[1] - abs(down), one.shape[2] - abs(right)
    here = one[:, max(down, 0) :, max(right, 0) :][:, :height, :width]
    there = other[:, max(-down, 0) :, max(-right, 0) :][:, :height, :width]
    axes = (1, 2, 3)
    apart = np.sqrt(np.square(here - there).mean(axis=axes))
    contrast = np.maximum(here.std(axis=axes), there.std(axis=axes))
    return np.asarray(apart / np.maximum(contrast, MIN_CONTRAST), np.float32)
