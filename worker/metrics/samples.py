"""The arrays that metrics take, checked; and their seeded choices."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from db.errors import NonFinite, Refused

Features = npt.NDArray[np.floating]  # (N, D)
Values = npt.NDArray[np.float64]  # (N,)
Flags = npt.NDArray[np.bool_]  # (N,)
Labels = npt.NDArray[np.integer]  # (N,)
Indices = npt.NDArray[np.int64]  # (N,)

BLOCK_BYTES = 64 * 2**20  # of one temporary array


def check_features(features: Features, *, at_least: int = 2) -> None:
    """Pass for a finite (N, D) array with D > 0 and at least `at_least` rows.

    Raises `Refused` for another shape and `NonFinite` for NaN or infinity.
    """
    if features.ndim != 2 or not features.shape[1]:
        raise Refused(
            f"features have shape {features.shape}", remedy="pass one row of numbers for each item"
        )
    if len(features) < at_least:
        raise Refused(
            f"a metric of {len(features)} items needs at least {at_least}", remedy="use more items"
        )
    if not np.isfinite(features).all():
        raise NonFinite(
            "features contain NaN or infinity", remedy="check the judge and the items it was given"
        )


def check_pair(real: Features, made: Features, *, at_least: int = 2) -> None:
    """Pass for two sets of features that `check_features` accepts and that have equal widths."""
    check_features(real, at_least=at_least)
    check_features(made, at_least=at_least)
    if real.shape[1] != made.shape[1]:
        raise Refused(
            f"real features have {real.shape[1]} columns, made features {made.shape[1]}",
            remedy="compute both with the same judge",
        )


def check_comparable(real: Features, made: Features) -> None:
    """Pass for what `check_pair` accepts if both sets have the same number of items."""
    check_pair(real, made, at_least=1)
    if len(real) != len(made):
        raise Refused(
            f"{len(real)} real items cannot be compared with {len(made)} made ones",
            remedy="use equally many: the value depends on the sample size",
        )


def generator(seed: int, stream: int = 0) -> np.random.Generator:
    """Counter-based random numbers: Philox keyed by (seed, stream)."""
    return np.random.Generator(np.random.Philox(key=[seed, stream]))


def blocks(count: int, row_bytes: int) -> Iterator[slice]:
    """Cut `count` rows into slices of at most `BLOCK_BYTES`, and of one row at least."""
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
