"""WAV files as recorders, editors and pipes write them: RIFF, RF64 and BW64, PCM and floats.

Only the `fmt ` and `data` chunks matter. Programs that cannot seek back leave the size of the
samples open, each with a number of its own; such samples end with the file. Other codecs in a WAV,
such as A-law and ADPCM, are decoded by libsndfile: see `worker.media.sources.codecs`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import IO

import numpy as np

from db.errors import BadInput
from worker.media.samples.wav import float_to_int16
from worker.media.sources.codecs import MAX_CHANNELS, Samples, check_rate, decode, mixed

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags; the extensible format holds another tag
MARKS = {b"RIFF", b"RF64", b"BW64"}
BLOCK_FRAMES = 1 << 20
OPEN_SIZE = 0x7F000000  # sizes from here on mean the rest of the file, if they go beyond its end

_KINDS = {(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)}
_AFTER = {b"LIST", b"id3 ", b"ID3 ", b"bext", b"fact", b"cue ", b"smpl", b"JUNK", b"PAD ", b"iXML"}
_SEARCHED = 1 << 20  # bytes in which `data` is looked for after a chunk with a wrong size


@dataclass(frozen=True)
class Format:
    """The content of the `fmt ` chunk."""

    tag: int
    channels: int
    rate: int  # Hz
    bits: int  # that a sample takes in the file
    raw: bytes

    @property
    def frame_bytes(self) -> int:
        """The size of a frame: one sample of every channel."""
        return self.channels * self.bits // 8

    @property
    def is_plain(self) -> bool:
        """Whether the samples are numbers, not a codec's."""
        return (self.tag, self.bits) in _KINDS


def read_wav(file: IO[bytes]) -> tuple[int, Samples]:
    """The sample rate and the samples of a WAV file, mixed to mono; `BadInput` for other files."""
    found, size = _open(file)
    if not found.is_plain:
        return found.rate, decode(_riff(found, file.read(size)))[1]
    left = size // found.frame_bytes * found.frame_bytes
    blocks = []
    while left:
        data = file.read(min(left, BLOCK_FRAMES * found.frame_bytes))
        if not data or len(data) % found.frame_bytes:
            raise BadInput(
                f"cut short: {left:,} of the {size:,} bytes of samples in its header are missing"
            )
        left -= len(data)
        blocks.append(mixed(_sixteen_bits(data, found).reshape(-1, found.channels)))
    if not blocks:
        raise BadInput("holds no samples")
    return found.rate, np.concatenate(blocks)


def read_rate(file: IO[bytes]) -> int:
    """The sample rate in Hz, from the header alone; `BadInput` if it is not a WAV file."""
    return _open(file)[0].rate


def _open(file: IO[bytes]) -> tuple[Format, int]:
    """The format and the size of the samples; leaves the file positioned at the first."""
    end = file.seek(0, SEEK_END)
    file.seek(0)
    _check_riff(file)
    found, long_size = None, None
    for name, size in _chunks(file, end):
        if name == b"ds64":
            long_size = _long_size(file.read(min(size, 28)))
        elif name == b"fmt ":
            found = _format(file.read(min(size, 64)))
        elif name == b"data":
            if found is None:
                raise BadInput("damaged: its samples come before their format")
            stated = long_size if size == 0xFFFFFFFF and long_size else size
            return found, _size(file, stated, end)
    if found is None:
        raise BadInput("cut short: it has no samples")
    return found, _search(file, end)


def _check_riff(file: IO[bytes]) -> None:
    head = file.read(12)
    if head[:4] in MARKS and len(head) < 12:
        raise BadInput("cut short: it has no samples")
    if head[:4] not in MARKS or head[8:] != b"WAVE":
        raise BadInput(f"not a WAV file: begins with {head[:4].hex(' ') or 'nothing'}")


def _chunks(file: IO[bytes], end: int) -> Iterator[tuple[bytes, int]]:
    """Each chunk's name and size; the file is at its content, which the caller may read."""
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        begin = file.tell()
        yield name, size
        file.seek(min(begin + size, end))
        if size % 2 and (pad := file.read(1)) != b"\0" and pad.isalpha():
            file.seek(-1, 1)  # a program that forgot the pad byte


def _search(file: IO[bytes], end: int) -> int:
    """The size of the samples behind a chunk with a wrong size; at the first, as `_open`."""
    file.seek(0)
    begin = file.read(_SEARCHED).find(b"data", 36)
    if begin < 0 or begin + 8 >= end:
        raise BadInput("cut short: it has no samples")
    file.seek(begin + 4)
    (size,) = struct.unpack("<I", file.read(4))
    return _size(file, size, end)


def _size(file: IO[bytes], stated: int, end: int) -> int:
    """The size of the samples: as stated, or all to the end if the program left it open."""
    begin = file.tell()
    if stated == 0:
        empty = file.read(4) in _AFTER
        file.seek(begin)
        return 0 if empty else end - begin
    return end - begin if stated >= OPEN_SIZE and stated > end - begin else stated


def _long_size(data: bytes) -> int | None:
    return int(struct.unpack_from("<Q", data, 8)[0]) if len(data) >= 16 else None


def _format(data: bytes) -> Format:
    """Parse a `fmt ` chunk; `BadInput` for formats that are not supported."""
    if len(data) < 14:
        raise BadInput("cut short within its format")
    tag, channels, rate, _, frame = struct.unpack_from("<HHIIH", data)
    bits = struct.unpack_from("<H", data, 14)[0] if len(data) >= 16 else 0
    if tag == EXTENSIBLE and len(data) >= 26:
        (tag,) = struct.unpack_from("<H", data, 24)  # the head of the sub-format's GUID
    if not 1 <= channels <= MAX_CHANNELS:
        raise BadInput(f"{channels} channels", remedy=f"use 1 to {MAX_CHANNELS}")
    check_rate(rate)
    if tag in {PCM, FLOAT} and (tag, bits) not in _KINDS:
        bits = 8 * frame // channels  # 20 bits in 3 bytes, say
        if (tag, bits) not in _KINDS:
            raise BadInput(
                f"format {tag} with {bits} bits is not supported",
                remedy="convert it to PCM of 8 to 32 bits or float of 32 or 64",
            )
    return Format(tag, channels, rate, bits, data)


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


def _riff(found: Format, data: bytes) -> IO[bytes]:
    """A WAV file of right sizes with the same format and samples."""
    form = b"fmt " + struct.pack("<I", len(found.raw)) + found.raw + bytes(len(found.raw) % 2)
    body = form + b"data" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return BytesIO(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
