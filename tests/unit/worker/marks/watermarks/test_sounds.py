from io import BytesIO

import numpy as np
import pytest
import soundfile
import soxr

from worker.marks.watermarks import sounds
from worker.marks.watermarks.sounds import LEAST_LOUDNESS, detect, detect_cut, embed, misfit

SECRET, OTHER = b"a secret of a tenant", b"that of another"
SURE = 1e-6


def voice(seconds=0.6, rate=8000, seed=0):
    """Harmonics of a gliding pitch, in syllables, with a little noise."""
    rng = np.random.default_rng(seed)
    at = np.arange(int(seconds * rate)) / rate
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(5 * at) + 10 * seed) / rate
    tones = sum(np.sin(n * pitch) / n for n in range(1, 14))
    loudness = 0.12 * np.clip(np.sin(9 * at) + 0.6, 0, None)
    return (tones * loudness + rng.normal(0, 0.002, len(at))).clip(-1, 1).astype(np.float32)


def written(sound, rate, subtype="PCM_16"):
    """What is read of a sound's file."""
    file = BytesIO()
    soundfile.write(file, sound, rate, format="WAV", subtype=subtype)
    file.seek(0)
    return soundfile.read(file)[0]


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 22050, 44100])
def test_a_marked_sound_is_known_by_its_key_and_sounds_the_same(rate):
    plain = voice(rate=rate)
    marked = embed(plain, rate, SECRET)

    assert marked.dtype == np.float32
    assert np.sqrt(np.mean((marked - plain) ** 2)) < 0.0025
    assert detect(written(marked, rate), rate, SECRET).p_value < 1e-30
    assert detect(written(marked, rate), rate, OTHER).p_value > SURE
    assert detect(written(plain, rate), rate, SECRET).p_value > SURE


@pytest.mark.parametrize("rate", [8000, 22050])
def test_the_mark_survives_encoding_resampling_and_a_flipped_byte(rate):
    for seed in range(3):
        marked = written(embed(voice(rate=rate, seed=seed), rate, SECRET), rate)
        flipped = np.round(marked * 32768).astype(np.int16)
        flipped[len(flipped) // 2] ^= 0x7F00
        copies = [(written(marked, rate, "PCM_U8"), rate), (flipped / 32768, rate)]
        copies.append((soxr.resample(marked, rate, rate // 2), rate // 2))
        for copy, its_rate in copies:
            assert detect(copy, its_rate, SECRET).p_value < SURE


@pytest.mark.parametrize("rate", [8000, 44100])
def test_the_mark_survives_cutting_a_tenth(rate):
    marked = written(embed(voice(rate=rate), rate, SECRET), rate)
    tenth = len(marked) // 10

    assert detect(marked[:-tenth], rate, SECRET).p_value < SURE
    middle = np.concatenate([marked[: 5 * tenth], marked[6 * tenth :]])
    assert detect(middle, rate, SECRET).p_value < SURE
    begun = marked[tenth + 3 :]
    assert detect(begun, rate, SECRET).p_value > SURE
    assert detect_cut(begun, rate, SECRET).p_value < SURE
    assert detect_cut(begun, rate, OTHER).p_value > SURE


def test_what_cannot_carry_the_mark_is_named():
    assert misfit(voice(), 8000) == ""
    assert misfit(voice(0.2), 8000) == "shorter than 0.22 s"
    assert misfit(voice(rate=2000), 2000) == "a rate under 4,000 Hz"
    soft = voice() * np.float32(LEAST_LOUDNESS / 2)
    assert misfit(soft, 8000) == "too soft to hide a mark"


@pytest.mark.parametrize("samples", [0, 1, 300, 600])
def test_a_few_samples_are_not_marked(samples):
    for test in (detect, detect_cut):
        assert test(np.zeros(samples), 8000, SECRET).p_value > SURE


def test_of_hours_of_sound_no_more_beginnings_are_tried_than_of_minutes():
    scores, _ = sounds._beginnings(np.zeros(10 * sounds.LONGEST), b"a secret")
    assert len(scores) == 1 + sounds.LONGEST // 4 // sounds.HOP + (sounds.LONGEST % 1024 > 0)
