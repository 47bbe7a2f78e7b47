"""A label that people hear at the beginning of a sound: the letters AI in Morse code.

Short, long; short, short: the rhythm that GB 45438-2025 names for sounds.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]

LOWEST_RATE = 2000  # Hz of a sound that can hold the tone
_TONE_HZ = 800
_UNIT_S = 0.08  # of a short tone; a long one is three
_AMPLITUDE = 0.25
_RAMP_S = 0.005  # in which a tone grows, so that it does not click
_RHYTHM = "1011100010100"  # A, I, and a pause; three units between letters
_ALIKE = 0.7  # the correlation with a label that was encoded again, at least


def with_label(sound: Sound, rate: int) -> Sound:
    """A (T,) sound behind the label."""
    return np.concatenate([_rhythm(rate), sound])


def has_label(sound: Sound, rate: int) -> bool:
    """Whether a (T,) sound begins with the label, loud or quiet."""
    if rate < LOWEST_RATE:
        return False
    rhythm = _rhythm(rate)
    begins = sound[: len(rhythm)]
    size = float(np.linalg.norm(begins))
    if len(begins) < len(rhythm) or not size:
        return False
    return float(begins @ rhythm) / (size * float(np.linalg.norm(rhythm))) >= _ALIKE


@lru_cache(maxsize=8)
def _rhythm(rate: int) -> Sound:
    unit, ramp = round(rate * _UNIT_S), max(1, round(rate * _RAMP_S))
    on = np.repeat([float(each) for each in _RHYTHM], unit)
    smooth = np.convolve(on, np.full(ramp, 1 / ramp), mode="same")
    tone = np.sin(2 * np.pi * _TONE_HZ / rate * np.arange(len(on)))
    rhythm: Sound = (_AMPLITUDE * smooth * tone).astype(np.float32)
    return rhythm
