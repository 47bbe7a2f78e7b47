"""WAV files as they come: every kind of sample, damaged ones, and our own with comments."""

import io
import struct
import wave

import numpy as np
import pytest

from db.errors import BadInput
from worker.media.samples.wav import read_info, write_wav
from worker.media.sources.wav_files import read_rate, read_wav

TONE = np.rint(8000 * np.sin(np.arange(100) / 5)).astype(np.int16)


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def wav(data: bytes, *, tag=1, bits=16, channels=1, rate=8000, before=b"", extensible=False):
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits)
    if extensible:
        guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
        form = struct.pack("<H", 0xFFFE) + form[2:] + struct.pack("<HHI", 22, bits, 4) + guid
    body = chunk(b"fmt ", form) + before + chunk(b"data", data)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def read(data: bytes):
    return read_wav(io.BytesIO(data))


def test_16_bit_samples_are_kept_as_they_are():
    rate, samples = read(wav(TONE.tobytes(), rate=11_025))
    assert rate == 11_025
    assert samples.dtype == np.int16
    assert (samples == TONE).all()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (((TONE >> 8) + 128).astype(np.uint8).tobytes(), {"bits": 8}),
        ((TONE.astype("<i4") << 8).view(np.uint8).reshape(-1, 4)[:, :3].tobytes(), {"bits": 24}),
        ((TONE.astype("<i4") << 16).tobytes(), {"bits": 32}),
        ((TONE / 32767).astype("<f4").tobytes(), {"bits": 32, "tag": 3}),
        ((TONE / 32767).tobytes(), {"bits": 64, "tag": 3}),
        (TONE.tobytes(), {"extensible": True}),
    ],
    ids=["8", "24", "32", "float", "double", "extensible"],
)
def test_other_kinds_of_samples_become_16_bits(data, kind):
    _, samples = read(wav(data, **kind))
    coarse = 256 if kind.get("bits") == 8 else 2
    assert np.abs(samples.astype(int) - TONE).max() < coarse


def test_stereo_is_mixed_to_its_mean():
    both = np.stack((TONE, np.full_like(TONE, 1000)), axis=1)
    _, samples = read(wav(both.tobytes(), channels=2))
    assert (samples == (TONE.astype(int) + 1000) // 2).all()


def test_floats_beyond_full_scale_are_clipped():
    _, samples = read(wav(np.array([2, -2, 0], "<f4").tobytes(), tag=3, bits=32))
    assert samples.tolist() == [32767, -32767, 0]


def test_other_chunks_are_stepped_over():
    data = wav(
        TONE.tobytes(), before=chunk(b"LIST", b"INFOIART\x04\0\0\0me\0\0") + chunk(b"x   ", b"1")
    )
    assert (read(data)[1] == TONE).all()


def test_a_size_left_open_by_a_pipe_means_the_rest_of_the_file():
    data = wav(TONE.tobytes()).replace(b"data" + struct.pack("<I", 200), b"data\xff\xff\xff\xff")
    assert (read(data)[1] == TONE).all()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "begins with nothing"),
        (b"ID3\x04 an MP3 file", "not a WAV file: begins with 49 44 33 04"),
        (wav(TONE.tobytes())[:-10], "10 of the 200 bytes of samples in its header are missing"),
        (wav(TONE.tobytes())[:40], "cut short: it has no samples"),
        (wav(TONE.tobytes())[:30], "cut short within its format"),
        (wav(b""), "holds no samples"),
        (wav(TONE.tobytes(), tag=0x7777), "cannot be read as a sound: "),
        (wav(TONE.tobytes(), bits=40), "40 bits"),
        (wav(TONE.tobytes(), channels=0), "0 channels; use 1 to 32"),
        (wav(TONE.tobytes(), rate=2_000_000), "2,000,000 Hz; resample it to 500 to 384,000 Hz"),
        (wav(np.array([np.nan], "<f4").tobytes(), tag=3, bits=32), "NaN or infinite"),
        (b"RIFF\0\0\0\0WAVE" + chunk(b"data", b"1234"), "before their format"),
    ],
)  # fmt: skip
def test_what_is_no_sound_wav_file_is_refused_with_the_reason(data, complaint):
    with pytest.raises(BadInput, match=complaint):
        read(data)


def test_the_rate_is_read_without_the_samples():
    assert read_rate(io.BytesIO(wav(TONE.tobytes())[:44])) == 8000


def test_what_is_written_is_read_by_the_standard_library_and_by_us():
    data = write_wav(TONE[:99], 8000, {"ICMT": "a comment", "ISFT": "猫"})
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        assert file.readframes(200) == TONE[:99].tobytes()
    assert (read(data)[1] == TONE[:99]).all()
    assert read_info(data) == {"ICMT": "a comment", "ISFT": "猫"}
