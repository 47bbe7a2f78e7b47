"""The metrics of sounds and of notes equal other implementations of them, and keep their laws."""

import io
import itertools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy import stats

from db.errors import Refused
from worker.metrics import histograms, melodies, sounds
from worker.metrics.samples import Values

CLOSE = 1e-6


def waves(seed: int, count: int = 20, loudness: float = 0.1) -> list[Values]:
    random = np.random.default_rng(seed)
    return [loudness * random.standard_normal(random.integers(900, 4_000)) for _ in range(count)]


def spectra(some: list[Values]) -> Values:
    return np.array([sounds.spectrum(wave) for wave in some])


def test_spectrum_is_that_of_torch() -> None:
    wave = waves(1, 1)[0]
    expected = []
    for frame in (256, 512, 1024):
        window = torch.hann_window(frame, dtype=torch.float64)
        bins = torch.stft(
            torch.from_numpy(wave),
            frame,
            frame // 4,
            window=window,
            center=False,
            return_complex=True,
        )
        power = (bins.abs() / window.sum()) ** 2
        expected.append(10 * torch.log10(power + 1e-8).mean(dim=1))
    assert sounds.spectrum(wave) == pytest.approx(torch.cat(expected).numpy(), rel=CLOSE)


def test_spectral_distance_is_that_of_scipy_in_each_bin() -> None:
    real, made = spectra(waves(1)), spectra(waves(2, loudness=0.2))
    gaps = [stats.wasserstein_distance(*pair) for pair in zip(real.T, made.T, strict=True)]
    parts = np.split(np.array(gaps), [129, 129 + 257])
    expected = np.mean([part.mean() for part in parts])
    assert sounds.spectral_distance(real, made) == pytest.approx(expected, rel=CLOSE)


def test_spectral_distance_of_louder_sounds_is_their_gain_in_decibels() -> None:
    real = waves(1)
    louder = spectra([2 * wave for wave in real])
    distance = sounds.spectral_distance(spectra(real), louder)
    assert distance == pytest.approx(20 * np.log10(2), rel=1e-2)  # but for the floor
    assert sounds.spectral_distance(louder, louder[::-1]) == 0


def test_a_short_or_silent_sound_has_a_spectrum() -> None:
    assert np.isfinite(sounds.spectrum(np.ones(3))).all()
    assert sounds.spectrum(np.zeros(2_000)) == pytest.approx(-80)


def test_spectral_distance_of_speech_grows_with_noise(shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "spoken-digits.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".wav"))[::8]
        spoken = [soundfile.read(io.BytesIO(archive.read(name)))[0] for name in names]
    random = np.random.default_rng(0)
    half = len(spoken) // 2
    real, others = spectra(spoken[:half]), spoken[half : 2 * half]
    found = [
        sounds.spectral_distance(
            real, spectra([wave + level * random.standard_normal(len(wave)) for wave in others])
        )
        for level in (0.002, 0.01, 0.05, 0.25)
    ]
    assert all(less < more for less, more in itertools.pairwise(found))


def test_bits_per_sample_of_a_uniform_guess_is_the_width_of_a_sample() -> None:
    nll = np.array([100, 300]) * np.log(256)
    assert sounds.bits_per_sample(nll, np.array([100, 300])) == pytest.approx(8)


def test_histograms_count_notes_and_steps() -> None:
    pieces = [[60, 64, 67, 60], [0, 127], [], [61]]
    classes, steps = melodies.pitch_class_counts(pieces), melodies.interval_counts(pieces)
    assert classes.shape == (4, 12)
    assert classes[0].tolist() == [2, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert steps.shape == (4, 25)
    assert {index - 12: times for index, times in enumerate(steps[0]) if times} == {
        4: 1,
        3: 1,
        -7: 1,
    }
    assert steps[1, 24] == 1  # wider than an octave
    assert not steps[2:].any()


def test_transposed_pieces_have_equal_steps_and_other_pitch_classes() -> None:
    random = np.random.default_rng(0)
    pieces = [random.choice([60, 62, 64, 65, 67], 40).tolist() for _ in range(30)]
    higher = [[pitch + 1 for pitch in piece] for piece in pieces]
    steps = melodies.interval_counts(pieces), melodies.interval_counts(higher)
    pitches = melodies.pitch_class_counts(pieces), melodies.pitch_class_counts(higher)
    assert melodies.histogram_overlap(*steps) == pytest.approx(1)
    assert melodies.histogram_overlap(*pitches) < 0.5


def test_overlap_and_divergence_are_those_of_scipy() -> None:
    real, made = np.array([3, 0, 5, 2]), np.array([1, 1, 9, 0])
    variation = np.abs(real / 10 - made / 11).sum() / 2
    assert histograms.overlap(real, made) == pytest.approx(1 - variation, rel=CLOSE)
    expected = stats.entropy(real + 1, made + 1)
    assert histograms.divergence(real, made) == pytest.approx(expected, rel=CLOSE)
    assert histograms.divergence(real, real) == 0
    assert histograms.overlap(real, 7 * real) == pytest.approx(1)


def test_unusable_sounds_and_notes_are_refused() -> None:
    with pytest.raises(Refused, match="shape"):
        sounds.spectrum(np.zeros((2, 9)))
    with pytest.raises(Refused, match="spectra of 5 numbers"):
        sounds.spectral_distance(np.ones((3, 5)), np.ones((3, 5)))
    with pytest.raises(Refused, match="pitches from -1 to 60"):
        melodies.pitch_class_counts([[60, -1]])
    with pytest.raises(Refused, match="counts nothing"):
        melodies.histogram_overlap(np.zeros((2, 12), np.int64), np.ones((2, 12), np.int64))
