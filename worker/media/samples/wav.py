"""WAV files of samples: 16-bit PCM with comments, which the standard library's `wave` cannot write.

Users' files are read elsewhere: `worker.media.sources.wav_files`. Source: Multimedia Programming
Interface and Data Specifications 1.0, 1991, chapter 3.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import BadInput, NonFinite
from worker.media.samples.containers import SampleRecord, describe
from worker.media.samples.record import Record, parse_record

Samples = npt.NDArray[np.int16]  # (T,), mono
Chunk = tuple[bytes, bytes]  # its name and content

RATES = (500, 384_000)  # Hz
MAX_ENTRIES = 40_000  # chunks, comments or frames of tags that are read
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
    return riff([(b"fmt ", form), (b"data", samples.astype("<i2").tobytes()), info_chunk(info)])


def info_chunk(info: Mapping[str, str]) -> Chunk:
    """The LIST chunk of comments, by four-letter name."""
    texts = ((name.encode("ascii"), text.encode() + b"\0") for name, text in info.items())
    return b"LIST", b"INFO" + b"".join(_bytes_of(name, text) for name, text in texts)


def riff(chunks: Iterable[Chunk]) -> bytes:
    """A WAV file of these chunks."""
    body = b"".join(_bytes_of(name, content) for name, content in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def float_to_int16(values: npt.NDArray[np.floating]) -> Samples:
    """Values in [-1, 1] as 16-bit samples; others are clipped."""
    samples: Samples = np.rint(np.clip(values, -1, 1) * 32767).astype(np.int16)
    return samples


def read_info(data: bytes) -> dict[str, str]:
    """The comments in a WAV file's LIST INFO chunk; `BadInput` if it is not a WAV file."""
    found = {}
    for name, content in riff_chunks(data):
        if name == b"LIST" and content.startswith(b"INFO"):
            for entry, text in _entries(content, 4):
                found[entry.decode("latin-1")] = text.split(b"\0")[0].decode("utf-8", "replace")
    return found


def read_sound(data: bytes) -> bytes:
    """The format and the samples of a WAV file; `BadInput` if it is not a WAV file."""
    return b"".join(
        name + content for name, content in riff_chunks(data) if name in {b"fmt ", b"data"}
    )


def read_samples(data: bytes) -> tuple[npt.NDArray[np.float32], int]:
    """The samples of a WAV file of ours, float32 (T,) in [-1, 1], and its rate in Hz.

    Raises `BadInput` if it is another kind of file: not 16-bit PCM, mono, of a rate in `RATES`.
    """
    chunks = dict(riff_chunks(data))
    form = chunks.get(b"fmt ", b"").ljust(16, b"\0")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", form[:16])
    if (kind, channels, bits) != (PCM, 1, 16):
        raise BadInput("not a WAV file of 16-bit PCM, mono")
    if not RATES[0] <= rate <= RATES[1]:
        raise BadInput(f"a sample rate of {rate:,} Hz")
    data = chunks.get(b"data", b"")
    whole = np.frombuffer(data[: len(data) // 2 * 2], "<i2")
    return whole.astype(np.float32) / np.float32(32768), int(rate)


def riff_chunks(data: bytes) -> Iterator[Chunk]:
    """Each chunk of a WAV file, the last one perhaps cut off; `BadInput` if it is none."""
    if not data:
        raise BadInput("empty")
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise BadInput(f"not a WAV file: begins with {data[:4].hex(' ')}")
    yield from _entries(data, 12)


def _entries(data: bytes, at: int) -> Iterator[Chunk]:
    left = MAX_ENTRIES
    while at + 8 <= len(data):
        if (left := left - 1) < 0:
            raise BadInput(f"it has over {MAX_ENTRIES:,} chunks or comments")
        name, size = struct.unpack_from("<4sI", data, at)
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _bytes_of(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
