"""Dither modulation: a zero-bit watermark in real numbers, keyed by a secret, and its test.

Each coefficient of a picture or sound is moved to the nearest point of a lattice, which the key
has shifted (Chen, Wornell 2001, "Quantization index modulation", IEEE Trans. Inf. Theory 47(4)).
Additive spread spectrum (Cox et al. 1997) would have to be heard over the picture itself, which at
64 pixels is ten times as loud as a mark that nobody sees; here it is no noise to the detector.

The test asks how well the coefficients agree with the key's lattice. Of anything that was made
without the key, the agreement of each coefficient is the cosine of a uniformly random angle,
whatever the content; so `p_value` is an upper bound, not an estimate.
"""

import hashlib
import math
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Array = TypeVar("Array", bound=npt.NDArray[Any])


class Detection(NamedTuple):
    """What a test found: the best of all places that were tried."""

    p_value: float  # at most the chance that content made without the key looks as marked
    z: float  # agreement in standard deviations
    coefficients: int  # that were looked at


def keystream(secret: bytes, purpose: str, size: int) -> bytes:
    """Bytes that look random to who lacks the secret; a prefix of those of any larger `size`."""
    return hashlib.shake_256(f"genmill watermark {purpose}\0".encode() + secret).digest(size)


def read_only(array: Array) -> Array:
    """The same array, which is kept and shared, so that nothing can be written into it."""
    array.flags.writeable = False
    return array


@lru_cache(maxsize=64)
def dithers(secret: bytes, purpose: str, *shape: int) -> Numbers:
    """How far the key shifts each lattice, in steps: uniform in [0, 1)."""
    stream = keystream(secret, purpose, 2 * math.prod(shape))
    found: Numbers = np.frombuffer(stream, "<u2").reshape(shape) / 65536
    return read_only(found)


def nearest(coefficients: Numbers, dither: Numbers, step: float) -> Numbers:
    """The points of the shifted lattices nearest to some coefficients."""
    return (np.rint(coefficients / step - dither) + dither) * step


def agreement(coefficients: Numbers, dither: Numbers, step: float) -> Numbers:
    """How near each coefficient is to its lattice: 1 on a point, -1 halfway between two."""
    return np.cos((coefficients / step - dither) * (2 * np.pi))


def z_scores(sums: npt.ArrayLike, counts: npt.ArrayLike) -> Numbers:
    """Sums of `counts` agreements in standard deviations; 0 of none. One has variance 1/2."""
    return np.asarray(sums) * np.sqrt(2 / np.maximum(counts, 1))


def p_value(z: float, tried: int) -> float:
    """An upper bound of the chance of the best z of `tried` tests without a mark.

    A sum of n independent cosines has the moment generating function I0(t)^n <= exp(n t^2 / 4), so
    by Chernoff's bound z exceeds a positive value with at most the chance exp(-z^2 / 2).
    """
    return min(1.0, tried * math.exp(-z * z / 2)) if z > 0 else 1.0
