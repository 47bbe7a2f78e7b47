"""Sounds of every format and rate."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from db.errors import BadInput, Refused
from worker.cleaning.recipe import Recipe
from worker.data.dataset import LocalDataset
from worker.ingest.ingest import ingest
from worker.media.samples.wav import write_wav
from worker.media.sources import codecs

SECONDS = 0.5


def tone(rate: int, hertz: float = 440) -> np.ndarray:
    times = np.arange(int(rate * SECONDS)) / rate
    return np.rint(9000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


def encoded(samples: np.ndarray, rate: int, form: str, subtype: str | None = None) -> bytes:
    target = io.BytesIO()
    samples = samples / 32768 if subtype == "FLOAT" else samples
    soundfile.write(target, samples, rate, format=form, subtype=subtype)
    return target.getvalue()


FORMATS = {
    "a.flac": ("FLAC", "PCM_16"), "a24.flac": ("FLAC", "PCM_24"), "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"), "a.mp3": ("MP3", "MPEG_LAYER_III"), "a.aiff": ("AIFF", "PCM_16"),
    "a.aif": ("AIFF", "FLOAT"), "a.w64": ("W64", "PCM_16"), "a.caf": ("CAF", "ALAC_16"),
    "timit.wav": ("NIST", "PCM_16"), "a.au": ("AU", "ULAW"),
    "wrong.wav": ("FLAC", "PCM_16"), "wrong.flac": ("WAV", "PCM_16"), "big.wav": ("RF64", "PCM_24"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_sound_of_every_format_is_taken_whatever_its_suffix_says(tmp_path, name):
    (tmp_path / name).write_bytes(encoded(tone(48_000), 48_000, *FORMATS[name]))
    result = ingest(tmp_path / name, tmp_path / "out")
    sounds = np.asarray(LocalDataset(tmp_path / "out").array("sounds")).astype(float)
    assert result.manifest["shape"]["sample_rate"] == 48_000
    assert abs(len(sounds) - 24_000) < 3_000  # some codecs pad
    assert loudest(sounds, 48_000) == pytest.approx(440, abs=4)
    assert np.abs(sounds).max() == pytest.approx(9000, rel=0.1)


def test_a_tag_in_front_of_a_wav_is_taken_off(tmp_path):
    tag = b"ID3\x03\0\0" + bytes([0, 0, 1, 20]) + bytes(148)
    (tmp_path / "a.wav").write_bytes(tag + write_wav(tone(8000), 8000, {}))
    ingest(tmp_path / "a.wav", tmp_path / "out")
    assert (np.asarray(LocalDataset(tmp_path / "out").array("sounds")) == tone(8000)).all()


def loudest(sound: np.ndarray, rate: int) -> float:
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(power.argmax()) * rate / len(sound)


def test_channels_become_their_mean(tmp_path):
    both = np.stack([tone(8000), np.zeros_like(tone(8000))], axis=1)
    (tmp_path / "a.flac").write_bytes(encoded(both, 8000, "FLAC"))
    ingest(tmp_path / "a.flac", tmp_path / "out")
    sounds = LocalDataset(tmp_path / "out").array("sounds")
    assert (np.asarray(sounds) == tone(8000).astype(int) // 2).all()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Three sounds of 8 kHz, and one each of five other rates."""
    folder = tmp_path / "set"
    folder.mkdir()
    for n, rate in enumerate([8000] * 3 + [11_025, 16_000, 22_050, 44_100, 48_000]):
        (folder / f"{n}.wav").write_bytes(write_wav(tone(rate, 440 + n), rate, {}))
    return folder


def test_sounds_of_another_rate_are_resampled(tmp_path, mixed):
    result = ingest(mixed, tmp_path / "out")
    dataset = LocalDataset(tmp_path / "out")
    assert (sum(result.manifest["counts"].values()), result.rejects) == (8, [])
    assert result.reading["sample rate"] == "8,000 Hz; 5 of other rates resampled"
    offsets = dataset.array("offsets")
    for n, sound in enumerate(np.split(np.asarray(dataset.array("sounds")), offsets[1:-1])):
        assert abs(len(sound) - 4000) <= 1
        assert loudest(sound, 8000) == pytest.approx(440 + n, abs=2.5)
        assert np.abs(sound[500:-500]).max() == pytest.approx(9000, rel=0.02)
    assert ingest(mixed, tmp_path / "again").manifest == result.manifest


def test_or_left_out_where_that_is_asked_for(tmp_path, mixed):
    result = ingest(mixed, tmp_path / "out", Recipe(resample=False))
    assert sum(result.manifest["counts"].values()) == 3
    assert all("leave out --no-resample" in reject.reason for reject in result.rejects)
    assert result.reading["sample rate"] == "8,000 Hz; 5 of other rates left out"


@pytest.mark.parametrize(("rate", "target"), [(48_000, 8000), (8000, 48_000), (44_100, 22_050)])
def test_resampling_removes_what_the_new_rate_cannot_hold_and_adds_nothing(rate, target):
    high = tone(rate, 0.45 * rate)
    low = codecs.resample(tone(rate, 300), rate, target)
    assert loudest(low, target) == pytest.approx(300, abs=3)
    if target < rate:
        assert np.abs(codecs.resample(high, rate, target)[100:-100]).max() < 100


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"ID3\4\0\0\0\0\0\0 nothing", "cannot be read as a sound"),
        (b"fLaC" + bytes(100), "cannot be read as a sound"),
        (b"OggS" + bytes(100), "cannot be read as a sound"),
        (b"\0\0\0\x20ftypM4A ", "an M4A sound; convert it"),
        (encoded(tone(8000), 8000, "FLAC")[:60], "cannot be read as a sound|holds no samples"),
        (b"", "empty"),
    ],
)
def test_what_is_no_sound_is_left_out_with_its_reason(tmp_path, data, says):
    (tmp_path / "a.mp3").write_bytes(data)
    with pytest.raises(BadInput, match=says):
        ingest(tmp_path / "a.mp3", tmp_path / "out")


def test_a_sound_that_unpacks_to_more_than_fits_is_left_out(monkeypatch):
    monkeypatch.setattr(codecs, "MAX_FRAMES", 1000)
    with pytest.raises(BadInput, match="more than 1,000 samples"):
        codecs.decode(io.BytesIO(encoded(tone(48_000), 48_000, "FLAC")))
    with pytest.raises(BadInput, match="more than 1,000 samples at 384,000"):
        codecs.resample(tone(500), 500, 384_000)


def test_resample_is_an_option_of_sounds_alone(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(Refused, match="which has no resample"):
        ingest(tmp_path / "a.txt", tmp_path / "out", Recipe(resample=False))
