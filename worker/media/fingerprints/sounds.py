"""Fingerprints of sounds, and how far a sound is from being a part of another.

A sound is looked at below 2 kHz, where other rates and codecs change little, and from its first to
its last loud moment: as a spectrogram, of which the changes with time count, not the colour of the
sound. Source of the bands: Haitsma and Kalker 2002.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from worker.cleaning.alike.sounds import CORRELATION
from worker.media.fingerprints.bits import Fingerprints
from worker.media.fingerprints.grids import (
    BINS,
    MIDDLE,
    SPANS,
    Grid,
    bits_of,
    cosines_over,
    frequencies,
)
from worker.media.sources import codecs, sound_files

RATE = 4000  # Hz
FRAME, HOP = 128, 32  # samples at this rate: 32 ms and 8 ms
MOST_S = 120  # seconds of a sound that are looked at
LOUD = 0.1  # of the peak: -20 dB
FLOOR = 1e-4  # of the loudest power: -40 dB
PLAIN = 0.1  # of the logarithm of the power: a standard deviation, for `bits_of`
SLACK = 64  # samples by which a codec may move a sound beyond its ends
FINE = 4  # shifts within the time of a sample, which may fall between two samples
QUIET = 0.01  # of the mean power of a sound, under which a stretch is not compared
ALL = (0.0, 1.0)

Sound = npt.NDArray[np.float32]  # (T,), at `RATE`


def of_sounds(sounds: Iterable[npt.NDArray[np.floating]], rate: int) -> Fingerprints:
    """A fingerprint of each sound in [-1, 1]."""
    rows = [np.zeros((0, 2), np.uint64)]
    for sound in sounds:
        whole = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
        rows.append(_bits(at_rate(whole, rate), [MIDDLE]))
    return np.concatenate(rows)


def of_sound_file(data: bytes) -> Fingerprints:
    """Those of a sound in any format, one for each way it may have been cut; `BadInput`."""
    return _bits(read_sound(data), SPANS)


def cut_distance(sample: Sound, copy: Sound) -> float:
    """How far a sound is from being a part of another; 1 is that of near-duplicates.

    By the highest correlation of the shorter one with a stretch of the other.
    """
    if not sample.any() or not copy.any():
        return np.inf
    short, long = sorted((sample, copy), key=len)
    return (1 - _correlation(short, np.pad(long, SLACK))) / (1 - CORRELATION)


def read_sound(data: bytes) -> Sound:
    """A sound in any format at `RATE`. Raises `BadInput`."""
    rate, samples = sound_files.decode_sound(data)
    return at_rate(samples, rate)


def at_rate(samples: codecs.Samples, rate: int) -> Sound:
    """The beginning of a sound at `RATE`."""
    some = samples[: MOST_S * rate]
    slow = codecs.resample(some, rate, RATE) if rate != RATE and len(some) else some
    return slow.astype(np.float32)


def spectrogram(sound: Sound) -> Grid:
    """The loud part of a sound as levels (BINS, moments) of the bands up to 2 kHz."""
    loud = np.flatnonzero(np.abs(sound) >= LOUD * np.abs(sound).max(initial=1))
    part = sound[loud[0] : loud[-1] + 1] if len(loud) else sound[:0]
    padded = np.pad(part, (0, max(0, FRAME - len(part))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    power = np.abs(np.fft.rfft(windows * np.hanning(FRAME).astype(np.float32))) ** 2
    bands = power[:, 1:].reshape(len(windows), BINS, -1).sum(axis=2).T
    return np.asarray(np.log(bands / max(bands.max(), 1.0) + FLOOR), np.float32)


def _correlation(short: Sound, long: Sound) -> float:
    """The highest normalised correlation of a sound with a stretch of a longer one."""
    size = 1 << (len(long) + len(short)).bit_length()
    spectrum = np.fft.rfft(long, size) * np.conj(np.fft.rfft(short, size))
    found = FINE * np.fft.irfft(spectrum, FINE * size)  # at shifts of parts of a sample too
    energy = np.concatenate([[0.0], np.cumsum(np.square(long, dtype=np.float64))])
    stretches = energy[len(short) :] - energy[: -len(short)]
    # where there is next to nothing, rounding would look like likeness
    floor = QUIET * energy[-1] * len(short) / len(long)
    scale = np.linalg.norm(short) * np.sqrt(np.maximum(stretches, floor))
    return float((found[: FINE * len(stretches)].reshape(-1, FINE).max(axis=1) / scale).max())


def _bits(sound: Sound, spans: Iterable[tuple[float, float]]) -> Fingerprints:
    grid = spectrogram(sound)
    # from the first frequency of time on: what does not change with time does not count
    moments = [cosines_over(grid.shape[1], span, first=1) for span in spans]
    low = frequencies(grid[None], [cosines_over(BINS, ALL)], moments)
    return bits_of(low, plain=PLAIN)
