"""WAV files of samples: 16-bit PCM with comments, which the standard library's `wave` cannot write.

Users' files are read elsewhere: `worker.media.sources.wav_files`. Source: Multimedia Programming
Interface and Data Specifications 1.0, 1991, chapter 3.
"""

import struct
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from db.errors import BadInput, NonFinite
from worker.media.samples.containers import SampleRecord, describe
from worker.media.samples.record import Record, parse_record

Samples = npt.NDArray[np.int16]  # (T,), mono

RATES = (500, 384_000)  # Hz
PCM = 1  # the format tag


def encode_wav(sample: SampleRecord, sample_rate: int) -> bytes:
    """A WAV file, 16-bit PCM, of a float32 (T,) sound in [-1, 1], with its record inside.

    Of its comments, `ISFT` names the program and `ICMT` holds the record.
    """
    output = sample.output
    if isinstance(output, str) or output.dtype != np.float32 or output.ndim != 1:
        raise NonFinite(f"sample {sample.index} is {describe(output)}, not a float32 (T,) sound")
    info = comments(sample.json, sample.shared.record["genmill"])
    return write_wav(float_to_int16(output), sample_rate, info)


def comments(record: bytes, version: object) -> dict[str, str]:
    """The comments that hold a record, and name the version of the program that made it."""
    return {"ISFT": f"genmill {version}", "ICMT": record.decode()}


def read_wav_record(source: Path | bytes) -> Record:
    """The record inside a WAV file made by Genmill; `BadInput` if there is none."""
    name = str(source) if isinstance(source, Path) else "the sound"
    info = read_info(source if isinstance(source, bytes) else source.read_bytes())
    if not info.get("ISFT", "").startswith("genmill "):
        raise BadInput(f"{name} was not made by Genmill: its comments do not name it")
    return parse_record(info.get("ICMT", ""), name)


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


def read_sound(data: bytes) -> bytes:
    """All that a WAV file holds but its comments; `BadInput` if it is not a WAV file."""
    file = BytesIO(data)
    _check_riff(file)
    return b"".join(name + file.read(size) for name, size in _chunks(file) if name != b"LIST")


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


def _chunk(name: str, data: bytes) -> bytes:
    return name.encode("ascii") + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
