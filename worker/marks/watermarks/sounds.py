"""A watermark in sounds: some waves between 380 and 1,370 Hz, of each 32 ms.

The waves are those of a modified discrete cosine transform (Princen, Bradley 1986), at 8 kHz
whatever the sound's own rate. They are in every sound that can be told by ear, and in copies of
half the rate. A copy whose beginning is cut off is found by trying where in the whole it begins.
"""

import math
from functools import lru_cache

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

Sound = npt.NDArray[np.float32]  # (T,), mono, in [-1, 1]

RATE = 8000  # Hz, at which sounds are marked and tested
LEAST_RATE = 4000  # Hz, of a sound to mark
HOP = 256  # samples from a frame to the next; a frame has twice as many
ORDERS = np.arange(24, 88, 2)  # the waves of a frame that are marked, each of 15.6 Hz
STEP = 0.02  # between two points of a lattice; the mark is 54 dB below full scale
LEAST_FRAMES = 6  # 0.22 s
LEAST_LOUDNESS = 0.02  # root mean square; of a softer sound the mark would be over a tenth
PASSES = 3  # to make up for what is clipped
CUT = 0.2  # of a sound, at most, that may be missing at its beginning
LONGEST = 120 * RATE  # samples; of longer sounds no more is missing than of such a one
COMPARED = 128  # frames, at most, by which the place of the beginning is found


def misfit(sound: Sound, rate: int) -> str:
    """Why a sound cannot carry the mark; "" if it can."""
    if rate < LEAST_RATE:
        return f"a rate under {LEAST_RATE:,} Hz"
    if _frames(len(sound) * RATE // rate) < LEAST_FRAMES:
        return f"shorter than {(LEAST_FRAMES + 1) * HOP / RATE:.2f} s"
    if math.sqrt(np.mean(np.square(sound, dtype=np.float64))) < LEAST_LOUDNESS:
        return "too soft to hide a mark"
    return ""


def embed(sound: Sound, rate: int, secret: bytes) -> Sound:
    """A sound with the mark; it must not be a `misfit`."""
    marked = sound.astype(np.float64)
    base = _at_rate(marked, rate, RATE)
    dither = _dither(secret, _frames(len(base)))
    found = _analyse(base)
    wanted = nearest(found, dither, STEP)
    for _ in range(PASSES):
        change = _at_rate(_synthesise(wanted - found, len(base)), RATE, rate)
        marked[: len(change)] += change[: len(marked)]
        np.clip(marked, -1, 1, out=marked)
        found = _analyse(_at_rate(marked, rate, RATE))
    return marked.astype(np.float32)


def detect(sound: Numbers, rate: int, secret: bytes) -> Detection:
    """The test of a whole mono sound (T,) of any rate; its end may be cut off."""
    found = _analyse(_at_rate(sound, rate, RATE))
    agreed = agreement(found, _dither(secret, len(found)), STEP)
    z = float(z_scores(agreed.sum(), agreed.size))
    return Detection(p_value(z, 1), z, agreed.size)


def detect_cut(sound: Numbers, rate: int, secret: bytes) -> Detection:
    """The test of a sound whose beginning may be cut off, to a sample of its rate or of 8 kHz."""
    best, coefficients, tried = 0.0, 0, 0
    for skipped in range(max(1, math.ceil(rate / RATE))):
        scores, counted = _beginnings(_at_rate(sound[skipped:], rate, RATE), secret)
        tried += scores.size
        if scores.size and scores.max() > best:
            best, coefficients = float(scores.max()), counted
    return Detection(p_value(best, tried), best, coefficients)


def _beginnings(base: Numbers, secret: bytes) -> tuple[Numbers, int]:
    """The z-scores (frames missing, samples before the first whole frame) of all beginnings.

    Also how many coefficients each is of.
    """
    count = min(_frames(len(base) - HOP), COMPARED)  # whole frames wherever the first one begins
    if count < 1:
        return np.empty(0), 0
    missing = 1 + math.ceil(CUT / (1 - CUT) * min(len(base), LONGEST) / HOP)
    found = np.stack([_analyse(base[start : start + (count + 1) * HOP]) for start in range(HOP)])
    lattices = _dither(secret, missing + count)
    shifted = np.stack([lattices[first : first + count] for first in range(missing)])
    # cos(a - b) of every pair, summed over the coefficients
    sums = _circle(shifted) @ _circle(found / STEP).T
    coefficients = count * len(ORDERS)
    return z_scores(sums, coefficients), coefficients


def _circle(turns: Numbers) -> Numbers:
    """Angles (N, ...) in turns as points of the unit circle, (N, coordinates)."""
    angles = turns.reshape(len(turns), -1) * (2 * np.pi)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def _frames(samples: int) -> int:
    return max(0, samples // HOP - 1)


def _dither(secret: bytes, frames: int) -> Numbers:
    return dithers(secret, "sound", frames, len(ORDERS))


def _at_rate(sound: Numbers, rate: int, wanted: int) -> Numbers:
    if rate == wanted:
        return sound
    import soxr  # noqa: PLC0415 - needed where rates differ

    found: Numbers = soxr.resample(sound, rate, wanted)
    return found


@lru_cache(maxsize=1)
def _basis() -> Numbers:
    """The waves (orders, 2 * HOP); they and those of all other frames are orthonormal."""
    at = np.arange(2 * HOP) + 0.5
    window = np.sin(np.pi * at / (2 * HOP))
    phase = np.pi / HOP * np.outer(ORDERS + 0.5, at + HOP / 2)
    found: Numbers = window * np.cos(phase) * math.sqrt(2 / HOP)
    return read_only(found)


def _analyse(base: Numbers) -> Numbers:
    """The coefficients (frames, orders) of the whole frames of a sound of 8 kHz."""
    count = _frames(len(base))
    if not count:
        return np.empty((0, len(ORDERS)))
    halves = base[: (count + 1) * HOP].reshape(count + 1, HOP)
    basis = _basis()
    return halves[:-1] @ basis[:, :HOP].T + halves[1:] @ basis[:, HOP:].T


def _synthesise(coefficients: Numbers, samples: int) -> Numbers:
    """The sound whose coefficients are these, and no others."""
    halves = np.zeros((len(coefficients) + 1, HOP))
    basis = _basis()
    halves[:-1] += coefficients @ basis[:, :HOP]
    halves[1:] += coefficients @ basis[:, HOP:]
    return np.pad(halves.ravel(), (0, samples))[:samples]
