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

from worker.cleaning.alike.groups import Keys, Likeness, Pairs, near_pairs

SIDE = 8  # frequencies in each direction, of the hash that candidates are found by
BITS = 4  # of its 64 bits that may differ after the shift
ROUGHLY = (
    0.16  # distance of the same frequencies, as vectors of length 1, above which none is alike
)
SHIFT = 2  # pixels in each direction that a pair may be apart
DISTANCE = 0.15  # root mean square difference to contrast, at the best shift
MIN_CONTRAST = 8.0  # standard deviation in levels of 255; flatter images are compared with it
LENGTH = 127
_BLOCK = 1 << 20  # pixels at once

Images = npt.NDArray[np.uint8]  # (N, S, S, C)
Vectors = npt.NDArray[np.int8]  # (N, 64), the lowest frequencies but the mean, of length `LENGTH`
# one of each two opposite directions, as each pair is looked up from both of its images
SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))


class AlikeImages(Likeness):
    """Images whose hash is near that of another, as it is or shifted, and whose pixels agree.

    Takes 144 bytes an image.
    """

    parameters: ClassVar[dict[str, Any]] = {
        "hash": "phash",
        "bits": BITS,
        "shift": SHIFT,
        "distance": DISTANCE,
    }

    def __init__(self, images: Images) -> None:
        self._images = images

    def candidates(self) -> Iterator[Pairs]:
        """Pairs whose hashes are near after one of the `SHIFTS`."""
        hashes, vectors = perceptual_hashes(self._images)
        for shift in SHIFTS:
            moved, vectors_moved = perceptual_hashes(self._images, shift)
            found = [np.empty((0, 2), np.int64)]  # of all bands: a pair is often in several
            for pairs in near_pairs(hashes, moved, bits=BITS):
                apart = distances(vectors[pairs[:, 0]], vectors_moved[pairs[:, 1]])
                found.append(pairs[apart <= ROUGHLY])
            yield np.unique(np.concatenate(found), axis=0)

    def alike(self, pairs: Pairs) -> npt.NDArray[np.bool_]:
        """Whether the pixels of each pair agree within `DISTANCE`."""
        step = _block(self._images)
        blocks = [self._alike(pairs[first : first + step]) for first in range(0, len(pairs), step)]
        return np.concatenate([np.zeros(0, bool), *blocks])

    def _alike(self, pairs: Pairs) -> npt.NDArray[np.bool_]:
        one, other = (self._images[pairs[:, side]].astype(np.float32) for side in (0, 1))
        contrast = np.maximum(*(each.std(axis=(1, 2, 3)) for each in (one, other)))
        best = np.full(len(pairs), np.inf, np.float32)
        for down, right in itertools.product(range(-SHIFT, SHIFT + 1), repeat=2):
            best = np.minimum(best, _difference(one, other, down, right))
        agree: npt.NDArray[np.bool_] = np.sqrt(best) <= DISTANCE * np.maximum(
            contrast, MIN_CONTRAST
        )
        return agree


def perceptual_hashes(images: Images, shift: tuple[int, int] = (0, 0)) -> tuple[Keys, Vectors]:
    """The hashes (N,) of images that are moved down and right, and their vectors (N, 64)."""
    left, right = (cosines(images.shape[1]) @ _moving(images.shape[1], step) for step in shift)
    hashes, vectors = np.empty(len(images), np.uint64), np.empty((len(images), SIDE**2), np.int8)
    rows = _block(images)
    for first in range(0, len(images), rows):
        block = slice(first, first + rows)
        hashes[block], vectors[block] = _described(images[block].mean(3, np.float32), left, right)
    return hashes, vectors


def hash_of(grey: npt.NDArray[np.float32]) -> tuple[np.uint64, npt.NDArray[np.int8]]:
    """The hash and the vector of one grey image (S, S)."""
    rows = cosines(len(grey))
    hashes, vectors = _described(np.asarray(grey[None], np.float32), rows, rows)
    return hashes[0], vectors[0]


def distances(some: Vectors, others: Vectors) -> npt.NDArray[np.float64]:
    """The distance of each vector to another: 0 if they are equal, 2 if they are opposite."""
    apart = np.square(some.astype(np.int16) - others).sum(axis=1, dtype=np.int64)
    return np.asarray(np.sqrt(apart) / LENGTH)


def _described(
    grey: npt.NDArray[np.float32], left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]
) -> tuple[Keys, Vectors]:
    low = (left @ grey @ right.T).reshape(len(grey), -1)
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    low[:, 0] = 0  # brightness
    lengths = np.linalg.norm(low, axis=1, keepdims=True)
    vectors = np.rint(LENGTH * low / np.maximum(lengths, 1)).astype(np.int8)
    return bits.view(">u8")[:, 0].astype(np.uint64), vectors


def _block(images: Images) -> int:
    return max(1, _BLOCK // max(1, images[:1].size))


def cosines(side: int, count: int = SIDE) -> npt.NDArray[np.float32]:
    """The lowest `count` rows of the DCT-II of `side` points, (count, side)."""
    points = (2 * np.arange(side) + 1) * np.pi / (2 * side)
    return np.asarray(2 * np.cos(np.arange(count)[:, None] * points), np.float32)


def _moving(side: int, step: int) -> npt.NDArray[np.float32]:
    """The matrix that moves `side` points by `step`, repeating the last point at the edge."""
    return np.eye(side, dtype=np.float32)[np.clip(np.arange(side) - step, 0, side - 1)]


def _difference(
    one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], down: int, right: int
) -> npt.NDArray[np.float32]:
    """The mean square difference of images (M, S, S, C) to others moved; (M,)."""
    height, width = one.shape[1] - abs(down), one.shape[2] - abs(right)
    here = one[:, max(down, 0) :, max(right, 0) :][:, :height, :width]
    there = other[:, max(-down, 0) :, max(-right, 0) :][:, :height, :width]
    apart = (here - there).reshape(len(one), -1)
    squares: npt.NDArray[np.float32] = np.einsum("ij,ij->i", apart, apart)
    return squares / np.float32(apart.shape[1])
