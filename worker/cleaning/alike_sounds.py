"""Near-duplicate sounds: encoded again, louder or softer, a little noise, cut a little differently.

A sound's spectrogram, from its first to its last loud moment, is a small image; its perceptual hash
finds candidates, which are confirmed on the samples: by the highest correlation of the two sounds
over all shifts, which does not depend on loudness.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from worker.cleaning.alike import Likeness, Pairs, near_pairs
from worker.cleaning.alike_images import hashes_of

BITS, FINE_BITS = 14, 96  # of 64 and of 256 that may differ
BAND_BITS = 8  # hashes of sounds differ by more than those of images
CORRELATION = 0.9  # at the best shift
SIDE = 32  # frequencies and moments of a spectrogram
MAX_SAMPLES = 1 << 17  # of a sound that are compared
_LOUD = 0.1  # of the peak, where a sound begins and ends: -20 dB
_FLOOR = 1e-4  # of the loudest power of a spectrogram: -40 dB

Sound = npt.NDArray[np.float32]


class AlikeSounds(Likeness):
    """Sounds whose spectrograms are near and whose samples correlate. Takes 56 bytes a sound."""

    parameters: ClassVar[dict[str, Any]] = {
        "hash": "phash of the spectrogram",
        "bits": BITS,
        "correlation": CORRELATION,
    }

    def __init__(self, samples: npt.NDArray[np.int16], ends: npt.NDArray[np.int64]) -> None:
        """Sound i is `samples[ends[i]:ends[i + 1]]`."""
        self._samples, self._ends = samples, ends

    def candidates(self) -> Iterator[Pairs]:
        """Pairs whose spectrograms' hashes differ in at most `BITS` bits."""
        count = len(self._ends) - 1
        coarse, fine = np.empty(count, np.uint64), np.empty((count, 4), np.uint64)
        for item in range(count):
            coarse[item], fine[item] = hashes_of(spectrogram(self._sound(item)))
        for pairs in near_pairs(coarse, coarse, bits=BITS, band_bits=BAND_BITS):
            apart = np.bitwise_count(fine[pairs[:, 0]] ^ fine[pairs[:, 1]])
            yield pairs[apart.sum(axis=1) <= FINE_BITS]

    def alike(self, pairs: Pairs) -> npt.NDArray[np.bool_]:
        """Whether the samples of each pair correlate by `CORRELATION` at some shift."""
        found = [
            correlation(self._sound(one), self._sound(other)) >= CORRELATION for one, other in pairs
        ]
        return np.array(found, bool)

    def _sound(self, item: int) -> Sound:
        start, end = self._ends[item], self._ends[item + 1]
        return np.asarray(self._samples[start : min(end, start + MAX_SAMPLES)], np.float32)


def spectrogram(sound: Sound) -> npt.NDArray[np.float32]:
    """The loud part of a sound as an image (SIDE, SIDE) of levels, frequency by time."""
    loud = np.flatnonzero(np.abs(sound) >= _LOUD * np.abs(sound).max())
    part = sound[loud[0] : loud[-1] + 1]
    size = 4 * SIDE
    starts = np.linspace(0, max(0, len(part) - size), SIDE).astype(np.int64)
    padded = np.pad(part, (0, max(0, size - len(part))))
    # several windows for each moment, so that a small shift changes little
    steps = np.linspace(0, max(1, len(part) / SIDE), 4, endpoint=False).astype(np.int64)
    moments = np.minimum(starts[:, None] + steps, len(padded) - size)
    windows = padded[moments[..., None] + np.arange(size)] * np.hanning(size)
    power = (np.abs(np.fft.rfft(windows)) ** 2).mean(axis=1)[:, 1:]  # (SIDE, 2 * SIDE)
    bands = power.reshape(SIDE, SIDE, 2).mean(axis=2).T
    return np.asarray(np.log(bands / bands.max() + _FLOOR), np.float32)


def correlation(one: Sound, other: Sound) -> float:
    """The highest normalised cross-correlation of two sounds over all shifts."""
    size = 1 << (len(one) + len(other) - 1).bit_length()
    spectra = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    energy = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.fft.irfft(spectra, size).max()) / max(energy, 1e-9)
