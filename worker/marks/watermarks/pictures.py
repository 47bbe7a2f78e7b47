"""A watermark in the brightness of pictures: the slowest waves of each of 8 x 8 tiles.

Whatever its size, a picture has the same tiles, and a wave is the same wave in a smaller copy. So
the mark survives resizing and, because JPEG keeps slow waves best, JPEG. A cropped copy has lost
some tiles; the others are found by trying where in the whole picture it may lie.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker.marks.watermarks.dither import (
    Detection,
    Numbers,
    agreement,
    dithers,
    nearest,
    p_value,
    read_only,
    z_scores,
)

Pixels = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

LEAST_SIDE = 64  # pixels; below, the waves would be of two or three pixels
TILES = 8  # along a side
ORDERS = 3  # waves of 0, 1 and 2 half periods in each direction, but not of 0 in both
STEP = 3.0  # grey levels between two points of a lattice: a PSNR of 40 dB
PASSES = 12  # at most, to mark where brightness is at its limit
AT_ONCE = 16  # pictures, which fit into a processor's cache
DONE = 0.95  # mean agreement after which no more passes are made
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG
# how often pixels were averaged when the picture was made smaller, as filters amount to
SOFTENED = (0.0, 0.5, 1.0, 1.5, 2.0)
CROPPED = 0.8  # of a side, at least, that a cropped copy still has
LARGEST = 1024  # pixels a side of samples, so of what a copy may be part of


class Placed(NamedTuple):
    """Agreement at several places: sums and counts of coefficients."""

    sums: Numbers
    counts: npt.NDArray[np.int64]


def embed(pictures: Pixels, secret: bytes) -> Pixels:
    """Pictures uint8 (N, H, W, 1 or 3) with the mark. Each depends on itself and the secret alone.

    Where pixels are black or white already, waves are clipped; a few passes make up for it, at the
    price of slightly brighter or darker tiles.
    """
    parts = range(0, len(pictures), AT_ONCE)
    return np.concatenate([_embed(pictures[each : each + AT_ONCE], secret) for each in parts])


def _embed(pictures: Pixels, secret: bytes) -> Pixels:
    height, width = pictures.shape[1:3]
    down, across, above, beside = waves(height), waves(width), _inverse(height), _inverse(width)
    dither, marks = _dither(secret), _marked_orders()
    made, left, marked = pictures.copy(), np.arange(len(pictures)), pictures.astype(np.float64)
    found = _analyse(luminance(marked), down, across)
    wanted = nearest(found, dither, STEP)
    for _ in range(PASSES):
        missing = np.where(marks, wanted - found, 0).reshape(len(left), *_matrix_shape())
        change = above @ missing @ beside.T
        for colour in range(marked.shape[-1]):  # in one go, NumPy would add three numbers at a time
            marked[..., colour] += change
        np.clip(marked, 0, 255, out=marked)
        rounded = np.rint(marked)
        made[left] = rounded.astype(np.uint8)
        found = _analyse(luminance(rounded), down, across)
        more = agreement(found, dither, STEP)[:, marks].mean(-1) < DONE
        left, marked, found, wanted = left[more], marked[more], found[more], wanted[more]
        if not len(left):
            break
    return made


def detect(brightness: Numbers, secret: bytes) -> Detection:
    """The test of a whole picture, by its luminance (H, W): of any size, not cropped."""
    found = _analyse(brightness, *(waves(size) for size in brightness.shape))
    left = (_left(*brightness.shape, times) for times in SOFTENED)
    return _best(_agreed(found / each, _dither(secret)) for each in left)


def detect_unchanged(brightness: Numbers, secret: bytes) -> list[Detection]:
    """The test of pictures as they were made, by their luminance (N, H, W).

    A picture that passes it passes `detect`, whose p-value is at most as high.
    """
    found = _analyse(brightness, *(waves(size) for size in brightness.shape[1:]))
    agreed = agreement(found, _dither(secret), STEP)[:, _marked_orders()]
    count = agreed.shape[1]
    scores = z_scores(agreed.sum(1), count).tolist()
    return [Detection(p_value(each, len(SOFTENED)), each, count) for each in scores]


def detect_cropped(brightness: Numbers, secret: bytes) -> Detection:
    """The test of part of a square picture, by its luminance (H, W): not resized.

    Nothing is part of a sample if it is as large as samples can be; it is not looked at.
    """
    return _best(_crops(brightness, _dither(secret)))


def luminance(pictures: Numbers) -> Numbers:
    """The brightness (..., H, W) of pictures (..., H, W, 1 or 3)."""
    if pictures.shape[-1] == 1:
        return pictures[..., 0]
    red, green, blue = (pictures[..., each] * LUMINANCE[each] for each in range(3))
    return red + green + blue


@lru_cache(maxsize=256)
def waves(pixels: int) -> Numbers:
    """Along one side: what each wave of each tile holds of the pixels, (TILES * ORDERS, pixels).

    A pixel counts by the part of it that lies in a tile. A row's response to its own wave is 1.
    """
    edges = np.arange(pixels + 1) / (pixels / TILES)  # in tiles
    tiles = np.arange(TILES)[:, None]
    first, last = (np.clip(each - tiles, 0, 1) for each in (edges[:-1], edges[1:]))
    middle = np.clip((edges[:-1] + edges[1:]) / 2 - tiles, 0, 1)
    rows = np.zeros((TILES, ORDERS, pixels))
    for order in range(ORDERS):
        weights = _integral(last, order) - _integral(first, order)
        response = (weights * _wave(middle, order)).sum(-1, keepdims=True)
        rows[:, order] = weights / np.where(np.abs(response) > 1e-9, response, 1)
    return read_only(rows.reshape(TILES * ORDERS, pixels))


def _wave(at: Numbers, order: int) -> Numbers:
    scale = np.sqrt(2) if order else 1.0
    return scale * np.cos(np.pi * order * at)


def _integral(at: Numbers, order: int) -> Numbers:
    return np.sqrt(2) * np.sin(np.pi * order * at) / (np.pi * order) if order else at


@lru_cache(maxsize=64)
def _inverse(pixels: int) -> Numbers:
    """Pixels (pixels, TILES * ORDERS) by which each wave changes by 1 and no other one does."""
    return read_only(np.asarray(np.linalg.pinv(waves(pixels)), np.float64))


def _matrix_shape() -> tuple[int, int]:
    return TILES * ORDERS, TILES * ORDERS


def _analyse(brightness: Numbers, down: Numbers, across: Numbers) -> Numbers:
    """The coefficients (..., TILES, ORDERS, TILES, ORDERS) of luminance (..., H, W)."""
    found = down @ brightness @ across.T
    return found.reshape(*found.shape[:-2], TILES, ORDERS, TILES, ORDERS)


def _dither(secret: bytes) -> Numbers:
    return dithers(secret, "picture", TILES, ORDERS, TILES, ORDERS)


@lru_cache(maxsize=1)
def _marked_orders() -> npt.NDArray[np.bool_]:
    """Which coefficients carry the mark: all but the mean of each tile."""
    found = np.ones((TILES, ORDERS, TILES, ORDERS), bool)
    found[:, 0, :, 0] = False
    return read_only(found)


def _agreed(found: Numbers, dither: Numbers) -> Placed:
    """The agreement of the coefficients of a whole picture."""
    agreed = agreement(found, dither, STEP)[_marked_orders()]
    return Placed(np.array([agreed.sum()]), np.array([agreed.size]))


@lru_cache(maxsize=64)
def _left(height: int, width: int, times: float) -> Numbers:
    """What is left of the coefficients of a picture after averaging its pixels so many times."""
    found: Numbers = np.multiply.outer(_averaged(height), _averaged(width)) ** times
    return read_only(found)


def _averaged(pixels: int) -> Numbers:
    """What is left of each wave (TILES, ORDERS) after averaging it over pixels of this size."""
    return np.tile(np.sinc(np.arange(ORDERS) * TILES / (2 * pixels)), (TILES, 1))


def _crops(brightness: Numbers, dither: Numbers) -> Iterator[Placed]:
    """The agreement wherever in a larger square picture this one may lie."""
    longest = max(brightness.shape)
    grid = 8 if longest <= 256 else 64  # sides of pictures are mostly multiples of it
    most = min(LARGEST, int(longest / CROPPED))
    for side in range(longest - longest % grid + grid, most + 1, grid):
        pace = max(1, side // 512)  # fine enough: a sixteenth of a pixel of 64
        down, across = (_tiled(size, side, pace) for size in brightness.shape)
        yield _all_places(brightness, down, across, dither)


class Tiled(NamedTuple):
    """Along one side: how the places of a crop are covered by tiles of the whole picture."""

    tile: int  # pixels
    begins: Places  # where whole tiles begin in any crop, ascending
    # of each tile: the places of the crop that hold it whole, and where it begins in them
    held: tuple[tuple[slice, slice], ...]
    places: int


def _tiled(pixels: int, side: int, pace: int) -> Tiled:
    """The tiles of a picture of `side` pixels, in crops that begin at every `pace`th one."""
    tile, starts = side // TILES, np.arange(0, side - pixels + 1, pace)
    begins = tile * np.arange(TILES)[:, None] - starts  # (TILES, places), descending
    whole = (begins >= 0) & (begins <= pixels - tile)
    known, held = np.unique(begins[whole]), []
    for own, kept in zip(begins, whole, strict=True):
        some = np.flatnonzero(kept)
        first = int(np.searchsorted(known, own[some[-1]])) if len(some) else 0
        at = slice(int(some[0]), int(some[-1]) + 1) if len(some) else slice(0, 0)
        held.append((at, slice(first, first + len(some))))
    return Tiled(tile, known, tuple(held), len(starts))


def _all_places(brightness: Numbers, down: Tiled, across: Tiled, dither: Numbers) -> Placed:
    """The agreement at all places. Tiles that are cut do not count.

    What a wave holds of a tile depends on where the tile begins alone: it is computed once for all
    places, and so is the cosine that the agreement is made of.
    """
    rows = _sliding(brightness, across).swapaxes(1, 2)  # (ORDERS, begins across, H)
    found = _sliding(rows, down).swapaxes(2, 3)  # (ORDERS, ORDERS, begins down, begins across)
    marked = _marked_orders()[0, :, 0]  # of any tile
    angles = (found[marked] * (2 * np.pi / STEP)).astype(np.float32)
    turns = (dither * (2 * np.pi)).swapaxes(1, 2)[..., marked]  # (TILES, TILES, waves)
    real, imaginary = np.cos(angles), np.sin(angles)
    sums, counts = np.zeros((2, down.places, across.places))
    for row, (places_down, begins_down) in enumerate(down.held):
        for column, (places_across, begins_across) in enumerate(across.held):
            at, begins = (places_down, places_across), (..., begins_down, begins_across)
            turn = turns[row, column]
            agreed = _weighted(np.cos(turn), real[begins])
            agreed += _weighted(np.sin(turn), imaginary[begins])
            sums[at] += agreed[::-1, ::-1]  # the later a crop begins, the earlier do its tiles
            counts[at] += len(turn)
    return Placed(sums.ravel(), counts.ravel().astype(np.int64))


def _weighted(weights: Numbers, some: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    total: npt.NDArray[np.float32] = np.einsum("o,oyx->yx", weights.astype(np.float32), some)
    return total


def _sliding(numbers: Numbers, tiled: Tiled) -> Numbers:
    """What each wave (ORDERS, ..., begins) holds of the tiles of numbers (..., pixels).

    As differences of running sums, so that it takes no longer for larger tiles.
    """
    found, at = [], tiled.begins
    for order in range(ORDERS):
        turn = 1j * np.pi * order / tiled.tile
        wave = np.exp(turn * np.arange(numbers.shape[-1])) if order else 1.0
        sums = np.cumsum(numbers * wave, axis=-1)
        sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)
        part = (sums[..., at + tiled.tile] - sums[..., at]) * np.exp(turn * (0.5 - at))
        found.append(part.real * ((np.sqrt(2) if order else 1) / tiled.tile))
    return np.stack(found)


def _best(places: Iterator[Placed]) -> Detection:
    """The highest z of all places."""
    best, coefficients, tried = 0.0, 0, 0
    for sums, counts in places:
        scores = z_scores(sums, counts)
        at = int(scores.argmax())
        tried += len(scores)
        if scores[at] > best:
            best, coefficients = float(scores[at]), int(counts[at])
    return Detection(p_value(best, tried), best, coefficients)
