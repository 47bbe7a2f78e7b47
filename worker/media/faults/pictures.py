"""Faults of made pictures, by the distances between pixels."""

from typing import Any

import numpy as np
import numpy.typing as npt

from worker.metrics.distances import nearest, squared_radii
from worker.metrics.diversity import perceptual_diversity
from worker.metrics.memorisation import copying_probability
from worker.metrics.samples import Features, Values

LEAST = 8  # pictures; fewer tell nothing
COMPARED_BYTES = 32 * 2**20  # of training pictures, as numbers
CLOSE_TOGETHER = 0.25  # of the distance between held-out neighbours, and between any two
OFF_THE_DATA = 0.01  # probability that a made picture is nearer to training than a held-out one
COPY = 0.25  # of the distance from a held-out picture to its nearest training picture
COPIES = 0.2  # share of the samples, beyond that of held-out pictures

Pixels = npt.NDArray[np.uint8]  # (N, H, W, C)


def picture_faults(made: Pixels, held_out: Pixels, train: Pixels) -> list[str]:
    """What is wrong with made pictures beside held-out and training ones; too few tell nothing."""
    count = min(len(made), len(held_out))
    if count < LEAST or len(train) < LEAST:
        return []
    some, real, known = (_rows(each) for each in (_spread(made, count), held_out[:count], train))
    measures = (_spacing, perceptual_diversity)
    apart = min(_share(measure(some), measure(real)) for measure in measures)
    if apart < CLOSE_TOGETHER:
        return [
            f"the {count} samples that were looked at hardly differ: they are {apart:.2f} times as "
            "far apart as held-out items are (collapse, or too little training)"
        ]
    near, held_out_near = nearest(some, known)[0], nearest(real, known)[0]
    return [*_noise(near, held_out_near), *_copies(near, held_out_near)]


def most_compared(shape: tuple[int, ...]) -> int:
    """How many training pictures of a shape (H, W, C) are compared with."""
    return max(LEAST, COMPARED_BYTES // (4 * int(np.prod(shape))))


def spread_over(places: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """At most `count` of some places, evenly spread."""
    return places[np.linspace(0, len(places) - 1, min(count, len(places))).astype(np.int64)]


def _noise(near: Values, held_out_near: Values) -> list[str]:
    nearer = copying_probability(near, held_out_near)
    if nearer >= OFF_THE_DATA:
        return []
    farther = float(np.median(near) / max(np.median(held_out_near), 1e-9))
    return [
        f"the {len(near)} samples that were looked at are like noise: practically all are farther "
        f"from the training data than held-out items are, {farther:.1f} times at the median"
    ]


def _copies(near: Values, held_out_near: Values) -> list[str]:
    limit = COPY * float(np.median(held_out_near))
    share, usual = float((near < limit).mean()), float((held_out_near < limit).mean())
    if share <= usual + COPIES:
        return []
    return [f"{share:.0%} of {len(near)} samples are near-copies of training items"]


def _share(made: float, real: float) -> float:
    """A part of what real items have; all of it where they have nothing."""
    return made / real if real else 1.0


def _spacing(rows: Features) -> float:
    """The median distance from an item to its nearest neighbour among the others."""
    return float(np.median(np.sqrt(squared_radii(rows, (1,))[0])))


def _rows(pixels: Pixels) -> Features:
    rows: Features = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
    return rows


def _spread(pixels: Pixels, count: int) -> Pixels:
    """Some of the pictures of a page, from all of its rows."""
    some: Pixels = pixels[spread_over(np.arange(len(pixels)), count)]
    return some
