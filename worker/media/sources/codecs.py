"""Compressed sounds, decoded by libsndfile and mixed to mono; sounds resampled by soxr."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from db.errors import BadInput
from worker.media.samples.wav import RATES, float_to_int16

MAX_CHANNELS = 32
MAX_FRAMES = 200_000_000  # of a sound: more than an hour at 48 kHz
_BLOCK = 1 << 18  # frames
_WHOLE = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"}

Samples = npt.NDArray[np.int16]  # (T,), mono


def decode(file: IO[bytes]) -> tuple[int, Samples]:
    """The sample rate and the samples of a sound of any format that libsndfile knows.

    Raises `BadInput` for other files, and for damaged ones.
    """
    samples = bytearray()
    with _opened(file) as sound:
        dtype = "int16" if sound.subtype in _WHOLE else "float32"
        while len(block := sound.read(_BLOCK, dtype=dtype, always_2d=True)):
            if not np.isfinite(block).all():
                raise BadInput("holds NaN or infinite samples")
            whole = block if dtype == "int16" else float_to_int16(block)
            samples += mixed(whole).tobytes()
            if len(samples) > 2 * MAX_FRAMES:
                raise BadInput(f"more than {MAX_FRAMES:,} samples", remedy="cut it into parts")
        rate = int(sound.samplerate)
    if not samples:
        raise BadInput("holds no samples")
    return rate, np.frombuffer(samples, np.int16)


def rate_of(file: IO[bytes]) -> int:
    """The sample rate in Hz of a sound that libsndfile knows, from its header."""
    with _opened(file) as sound:
        return int(sound.samplerate)


def resample(samples: Samples, rate: int, target: int) -> Samples:
    """A sound at another rate, by a filter of 20 bits' precision."""
    import soxr  # noqa: PLC0415 - needed where rates differ

    if len(samples) * target > MAX_FRAMES * rate:
        raise BadInput(f"more than {MAX_FRAMES:,} samples at {target:,} Hz")
    stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
    blocks = []
    for start in range(0, len(samples), _BLOCK):
        block = samples[start : start + _BLOCK].astype(np.float32) / 32768
        made = stream.resample_chunk(block, last=start + _BLOCK >= len(samples))
        blocks.append(np.rint(np.clip(made * 32768, -32768, 32767)).astype(np.int16))
    return np.concatenate(blocks)


def mixed(frames: Samples) -> Samples:
    """The mean of the channels of frames (T, channels), rounded down."""
    if frames.shape[1] == 1:
        return frames[:, 0]
    mean: Samples = (frames.astype(np.int32).sum(axis=1) // frames.shape[1]).astype(np.int16)
    return mean


def check_rate(rate: int) -> None:
    """Refuse a sample rate that no sound has."""
    if not RATES[0] <= rate <= RATES[1]:
        limits = f"{RATES[0]:,} to {RATES[1]:,} Hz"
        raise BadInput(f"a sample rate of {rate:,} Hz", remedy=f"resample it to {limits}")


@contextmanager
def _opened(file: IO[bytes]) -> Iterator[Any]:
    import soundfile  # noqa: PLC0415 - needed for these formats only

    head = file.read(4)
    if not head:
        raise BadInput("empty")
    file.seek(0)
    try:
        with soundfile.SoundFile(_Plain(file)) as sound:
            check_rate(sound.samplerate)
            if not 1 <= sound.channels <= MAX_CHANNELS:
                raise BadInput(f"{sound.channels} channels", remedy=f"use 1 to {MAX_CHANNELS}")
            yield sound
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = str(error).partition(": ")[2] or str(error)
        raise BadInput(f"cannot be read as a sound: {reason}") from error


class _Plain(io.RawIOBase):
    """A file without a name, so that libsndfile judges it by its content alone."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
