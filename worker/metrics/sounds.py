"""Metrics of sounds. The agreement with labels is `classes.label_agreement`."""

import math

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.metrics.language_models import Counts, loss
from worker.metrics.samples import Features, Values, blocks, check_comparable

FRAMES = (256, 512, 1_024)  # samples of a frame; frames overlap by three quarters
FLOOR = 1e-8  # power: 80 dB below that of a full-scale constant

Wave = npt.NDArray[np.floating]  # (samples,), from -1 to 1


def bits_per_sample(nll: Values, samples: Counts) -> float:
    """Bits to encode a sample of a wave; lower is better. `nll` is the sounds', in nats, (N,)."""
    return loss(nll, samples) / math.log(2)


def spectral_distance(real: Features, made: Features) -> float:
    """Distance of two sets of `spectrum`s (N, D), in dB; lower is better, 0 at equality.

    The 1-Wasserstein distance between the real and made levels in each frequency bin, averaged over
    the bins of each resolution and over the resolutions. So it sees wrong levels and wrong spread,
    not the order of what sounds. Unpaired, unlike the multi-resolution loss of Yamamoto et al. 2020
    (arXiv:1910.11480), whose resolutions it shares in kind.
    """
    check_comparable(real, made)
    gaps = np.abs(np.sort(real, axis=0) - np.sort(made, axis=0)).mean(axis=0)  # (D,)
    bins = np.cumsum([frame // 2 + 1 for frame in FRAMES])
    if bins[-1] != len(gaps):
        raise Refused(f"spectra of {len(gaps)} numbers", remedy="compute them with `spectrum`")
    return float(np.mean([part.mean() for part in np.split(gaps, bins[:-1])]))


def spectrum(wave: Wave) -> Values:
    """Mean level over time of each frequency bin at the three resolutions of `FRAMES`, in dB, (D,).

    Hann windows; the power of a full-scale constant is 0 dB. A sound shorter than a frame is
    followed by silence. Compare sounds of one sample rate.
    """
    if wave.ndim != 1 or not len(wave):
        raise Refused(f"a sound has shape {wave.shape}", remedy="pass one channel of samples")
    return np.concatenate([_mean_levels(wave.astype(np.float64), frame) for frame in FRAMES])


def _mean_levels(wave: Values, frame: int) -> Values:
    """The mean level of each bin over the frames, in dB, (frame / 2 + 1,)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    padded = np.pad(wave, (0, max(0, frame - len(wave))))
    cuts = np.lib.stride_tricks.sliding_window_view(padded, frame)[:: frame // 4]
    sums = np.zeros(frame // 2 + 1)
    for rows in blocks(len(cuts), 24 * frame):
        amplitudes = np.abs(np.fft.rfft(cuts[rows] * window)) / window.sum()
        sums += 10 * np.log10(np.square(amplitudes) + FLOOR).sum(axis=0)
    return sums / len(cuts)
