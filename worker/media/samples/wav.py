"""WAV files: reads PCM of 8 to 32 bits and floats as 16-bit mono, writes 16-bit PCM with comments.

The standard library's `wave` reads no floats, reads the extensible format only since Python 3.12,
and writes no comments. Source: Multimedia Programming Interface and Data Specifications 1.0, 1991,
chapter 3.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from db.errors import BadInput, NonFinite
from worker.media.samples.containers import SampleRecord, describe
from worker.media.samples.record import Record, parse_record

Samples = npt.NDArray[np.int16]  # (T,), mono

RATES = (500, 384_000)  # Hz
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags; the extensible format holds another tag
BLOCK_FRAMES = 1 << 20
UNKNOWN_SIZE = 0xFFFFFFFF  # of programs that write to a pipe: the samples end with the file

_KINDS = {(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)}
_REMEDY = "convert it to PCM of 8 to 32 bits or float of 32 or 64, mono or stereo"


@dataclass(frozen=True)
class Format:
    """The content of the `fmt ` chunk."""

    tag: int
    channels: int
    rate: int  # Hz
    bits: int

    @property
    def frame_bytes(self) -> int:
        """The size of a frame: one sample of every channel."""
        return self.channels * self.bits // 8


def encode_wav(sample: SampleRecord, sample_rate: int) -> bytes:
    """A WAV file, 16-bit PCM, of a float32 (T,) sound in [-1, 1], with its record inside.

    Of its comments, `ISFT` names the program and `ICMT` holds the record.
    """
    output = sample.output
    if isinstance(output, str) or output.dtype != np.float32 or output.ndim != 1:
        raise NonFinite(f"sample {sample.index} is {describe(output)}, not a float32 (T,) sound")
    version = sample.shared.record["genmill"]
    info = {"ISFT": f"genmill {version}", "ICMT": sample.json.decode()}
    return write_wav(float_to_int16(output), sample_rate, info)


def read_wav_record(source: Path | bytes) -> Record:
    """The record inside a WAV file made by Genmill; `BadInput` if there is none."""
    name = str(source) if isinstance(source, Path) else "the sound"
    info = read_info(source if isinstance(source, bytes) else source.read_bytes())
    if not info.get("ISFT", "").startswith("genmill "):
        raise BadInput(f"{name} was not made by Genmill: its comments do not name it")
    return parse_record(info.get("ICMT", ""), name)


def read_wav(file: IO[bytes]) -> tuple[int, Samples]:
    """The sample rate and the samples of a WAV file, mixed to mono; `BadInput` for other files."""
    found, size = _open(file)
    left = size // found.frame_bytes * found.frame_bytes
    blocks = []
    while left:
        data = file.read(min(left, BLOCK_FRAMES * found.frame_bytes))
        if not data or len(data) % found.frame_bytes:
            raise BadInput(
                f"cut short: {left:,} of the {size:,} bytes of samples in its header are missing"
            )
        left -= len(data)
        wide = _sixteen_bits(data, found).astype(np.int32).reshape(-1, found.channels)
        blocks.append(
            (wide.sum(axis=1) // found.channels).astype(np.int16)
        )  # the mean, rounded down
    if not blocks:
        raise BadInput("holds no samples")
    return found.rate, np.concatenate(blocks)


def read_rate(file: IO[bytes]) -> int:
    """The sample rate in Hz, from the header alone; `BadInput` if it is not a WAV file."""
    return _open(file)[0].rate


def write_wav(samples: Samples, rate: int, info: Mapping[str, str]) -> bytes:
    """A WAV file, 16-bit PCM mono, with a LIST chunk of the comments `info`, by four-letter name.

    The LIST chunk comes last, because some readers expect the samples at byte 44.
    """
    form = struct.pack("<HHIIHH", PCM, 1, rate, 2 * rate, 2, 16)
    entries = b"".join(_chunk(name, text.encode() + b"\0") for name, text in info.items())
    chunks = [
        ("fmt ", form),
        ("data", samples.astype("<i2").tobytes()),
        ("LIST", b"INFO" + entries),
    ]
    body = b"".join(_chunk(name, data) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def float_to_int16(values: npt.NDArray[np.floating]) -> Samples:
    """Values in [-1, 1] as 16-bit samples; others are clipped."""
    samples: Samples = np.rint(np.clip(values, -1, 1) * 32767).astype(np.int16)
    return samples


def read_info(data: bytes) -> dict[str, str]:
    """The comments in a WAV file's LIST INFO chunk; `BadInput` if it is not a WAV file."""
    file, found = BytesIO(data), {}
    _check_riff(file)
    for name, size in _chunks(file):
        content = file.read(size) if name == b"LIST" else b""
        if content.startswith(b"INFO"):
            entries = BytesIO(content[4:])
            for entry, length in _chunks(entries):
                text = entries.read(length).split(b"\0")[0]
                found[entry.decode("latin-1")] = text.decode("utf-8", "replace")
    return found


def _open(file: IO[bytes]) -> tuple[Format, int]:
    """The format and the size of the samples; leaves the file positioned at the first."""
    _check_riff(file)
    found = None
    for name, size in _chunks(file):
        if name == b"fmt ":
            found = _format(file.read(min(size, 64)))
        elif name == b"data":
            if found is None:
                raise BadInput("damaged: its samples come before their format")
            if size == UNKNOWN_SIZE:
                begin = file.tell()
                end = file.seek(0, SEEK_END)
                file.seek(begin)
                return found, end - begin
            return found, size
    raise BadInput("cut short: it has no samples")


def _check_riff(file: IO[bytes]) -> None:
    head = file.read(12)
    if not head:
        raise BadInput("empty")
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise BadInput(f"not a WAV file: begins with {head[:4].hex(' ')}")


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Each chunk's name and size; the file is at its content, which the caller may read."""
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        begin = file.tell()
        yield name, size
        file.seek(begin + size + size % 2)


def _format(data: bytes) -> Format:
    """Parse a `fmt ` chunk; `BadInput` for formats that are not supported."""
    if len(data) < 16:
        raise BadInput("cut short within its format")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data)
    if tag == EXTENSIBLE and len(data) >= 26:
        (tag,) = struct.unpack_from("<H", data, 24)  # the head of the sub-format's GUID
    if (tag, bits) not in _KINDS or channels not in {1, 2}:
        raise BadInput(
            f"format {tag} with {bits} bits and {channels} channels is not supported",
            remedy=_REMEDY,
        )
    if not RATES[0] <= rate <= RATES[1]:
        limits = f"{RATES[0]:,} to {RATES[1]:,} Hz"
        raise BadInput(f"a sample rate of {rate:,} Hz", remedy=f"resample it to {limits}")
    return Format(tag, channels, rate, bits)


def _sixteen_bits(data: bytes, found: Format) -> Samples:
    """Samples of any format as 16 bits: the high bits of integers, or floats in [-1, 1]."""
    if found.tag == FLOAT:
        values = np.frombuffer(data, f"<f{found.bits // 8}")
        if not np.isfinite(values).all():
            raise BadInput("holds NaN or infinite samples")
        return float_to_int16(values)
    if found.bits == 8:  # the only unsigned format
        samples: Samples = (np.frombuffer(data, np.uint8).astype(np.int16) - 128) << 8
        return samples
    size = found.bits // 8
    high = np.frombuffer(data, np.uint8).reshape(-1, size)[:, size - 2 :]
    return np.frombuffer(high.tobytes(), np.int16)


def _chunk(name: str, data: bytes) -> bytes:
    return name.encode("ascii") + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
