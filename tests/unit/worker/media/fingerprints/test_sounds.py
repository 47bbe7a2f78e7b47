"""Copies of sounds are found by their fingerprints: other codecs, rates, loudness, parts."""

from io import BytesIO

import numpy as np
import pytest
import soundfile
import soxr

from db.errors import BadInput
from worker.data.dataset import Shape
from worker.media import find_medium
from worker.media.fingerprints.bits import fewest_bits
from worker.media.samples.wav import float_to_int16, write_wav

MEDIUM = find_medium("audio")
RATE, COUNT = 8000, 60
SHAPE = Shape("audio", sample_rate=RATE)


def melodies(count: int = COUNT) -> list[np.ndarray]:
    """Notes of different pitch, length and loudness, one after another."""
    draw = np.random.default_rng(3)
    sounds = []
    for _ in range(count):
        notes = []
        for _ in range(int(draw.integers(4, 9))):
            time = np.arange(int(draw.uniform(0.05, 0.25) * RATE)) / RATE
            tone = np.sin(2 * np.pi * draw.uniform(150, 1800) * time)
            notes.append(draw.uniform(0.2, 0.9) * tone * np.exp(-time / draw.uniform(0.05, 0.4)))
        sounds.append(np.concatenate(notes).astype(np.float32))
    return sounds


def wav(sound: np.ndarray, rate: int = RATE) -> bytes:
    return write_wav(float_to_int16(sound), rate, {})


def coded(sound: np.ndarray, form: str, **options) -> bytes:
    target = BytesIO()
    soundfile.write(target, sound, RATE, format=form, **options)
    return target.getvalue()


WAYS = {
    "Ogg Vorbis": lambda sound: coded(sound, "OGG", subtype="VORBIS"),
    "MP3": lambda sound: coded(sound, "MP3", subtype="MPEG_LAYER_III"),
    "half the rate": lambda sound: wav(soxr.resample(sound, RATE, RATE // 2), RATE // 2),
    "a quarter as loud": lambda sound: wav(sound / 4),
    "a tenth cut off at the end": lambda sound: wav(sound[: len(sound) * 9 // 10]),
    "a tenth cut off at the beginning": lambda sound: wav(sound[len(sound) // 10 :]),
    "silence around it": lambda sound: wav(np.pad(sound, 2000)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_nearest_to_its_sample_and_confirmed(way):
    sounds = melodies()
    rows = MEDIUM.fingerprints(sounds, SHAPE)
    for number in range(0, COUNT, 15):
        copy = WAYS[way](sounds[number])
        apart = fewest_bits(rows, MEDIUM.fingerprints_of_file(copy))
        nearest = np.argsort(apart, kind="stable")[:4]
        assert number in nearest, (apart[number], apart.min())
        found = {place: MEDIUM.copy_distance(wav(sounds[place]), copy) for place in nearest}
        assert min(found, key=found.__getitem__) == number, found
        assert found[number] <= 1, found
        assert sorted(found.values())[1] > 1, found


def test_silence_has_no_fingerprint_and_is_no_copy():
    silence = np.zeros(800, np.float32)
    assert not MEDIUM.fingerprints([silence, silence[:0]], SHAPE).any()
    assert not MEDIUM.fingerprints_of_file(wav(silence)).any()
    assert MEDIUM.copy_distance(wav(silence), wav(melodies(1)[0])) > 1


def test_very_short_sounds_and_other_rates_are_taken():
    short = np.sin(np.arange(40) / 3).astype(np.float32)
    assert MEDIUM.fingerprints([short], Shape("audio", sample_rate=48_000)).shape == (1, 2)
    assert MEDIUM.fingerprints_of_file(wav(short, 500)).shape[1] == 2


@pytest.mark.parametrize("data", [b"", b"RIFF", b"text", wav(melodies(1)[0])[:30], bytes(100)])
def test_what_is_no_sound_is_refused(data):
    with pytest.raises(BadInput):
        MEDIUM.fingerprints_of_file(data)


def test_the_parts_of_a_sample_cover_it_however_damaged():
    sample = write_wav(np.arange(50, dtype=np.int16), RATE, {"ISFT": "genmill", "ICMT": "{}"})
    parts = list(MEDIUM.parts(sample))
    assert [part.name for part in parts][1:] == [
        "the format of the sound", "the sound", "the comments",
    ]  # fmt: skip
    assert parts[-1].stop == len(sample)
    for cut in range(len(sample)):  # never an error
        assert list(MEDIUM.parts(sample[:cut])) is not None
