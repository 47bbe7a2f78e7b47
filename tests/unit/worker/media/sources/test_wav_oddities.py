"""WAV files with the oddities of real programs, made from the format's specification."""

import io
import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import soundfile

from worker.media.samples.wav import write_wav
from worker.media.sources.wav_files import read_rate, read_wav

RATE = 8000
TONE = np.rint(8000 * np.sin(np.arange(200) / 5)).astype(np.int16)
FLOATS = (TONE / 32768).astype("<f8")
GUID = bytes.fromhex("000000001000800000aa00389b71")

PCM, FLOAT = 1, 3
SIZES = {
    "SoX": 0x7FFFF000,
    "SoX less its header": 0x7FFFF000 - 36,
    "arecord": 0x80000000,
    "arecord less its header": 0x80000000 - 36,
    "GStreamer": 0,
    "ffmpeg": 0xFFFFFFFF,
    "ffmpeg less its header": 0xFFFFFFFF - 36,
    "lame": 0xFFFFFFFF - 44,
    "mplayer": 0x7FFFFFFF,
    "espeak": 0x7FFFFFFF - 36,
    "a signed zero": 0x80000000 + 8,
    "4 GiB less a frame": 0xFFFFFFFE,
}


def chunk(name: bytes, data: bytes, size: int | None = None, pad: bytes = b"\0") -> bytes:
    stated = len(data) if size is None else size
    return name + struct.pack("<I", stated) + data + pad * (len(data) % 2)


def form(tag=PCM, bits=16, channels=1, rate=RATE, frame=None, extra=b"") -> bytes:
    frame = channels * ((bits + 7) // 8) if frame is None else frame
    return struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits) + extra


def extensible(tag=PCM, bits=16, channels=1, valid=None, mask=4) -> bytes:
    head = form(0xFFFE, bits, channels)
    return head + struct.pack("<HHIH", 22, valid or bits, mask, tag) + GUID


def riff(*chunks: bytes, mark: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return mark + struct.pack("<I", len(body) if size is None else size) + body


DATA = TONE.astype("<i2").tobytes()
FMT = chunk(b"fmt ", form())
SAMPLES = chunk(b"data", DATA)
INFO = b"INFO" + chunk(b"ISFT", b"Lavf58.29.100\0") + chunk(b"INAM", b"odd")


def stereo(values: np.ndarray) -> bytes:
    return np.repeat(values[:, None], 2, axis=1).tobytes()


def packed24(values: np.ndarray) -> bytes:
    return (values.astype("<i4") << 8).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def encoded(subtype: str, values: np.ndarray = TONE) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, values, RATE, format="WAV", subtype=subtype)
    return target.getvalue()


def containers() -> Iterator[tuple[str, bytes]]:
    """Sizes and chunks around 16-bit samples."""
    for name, size in SIZES.items():
        yield f"size of {name}", riff(FMT, chunk(b"data", DATA, size))
        yield f"both sizes of {name}", riff(FMT, chunk(b"data", DATA, size), size=size)
        yield (
            f"size of {name} after a LIST",
            riff(FMT, chunk(b"LIST", INFO), chunk(b"data", DATA, size)),
        )
    for size in (0, 36, 8, 0xFFFFFFFF, 0x7FFFFFFF, 12345):
        yield f"RIFF size {size}", riff(FMT, SAMPLES, size=size)
    for name in (b"LIST", b"JUNK", b"bext", b"PAD ", b"iXML", b"_PMX", b"id3 ", b"cue ", b"FLLR"):
        other = chunk(name, b"x" * 1234)
        yield f"{name!r} first", riff(other, FMT, SAMPLES)
        yield f"{name!r} between", riff(FMT, other, SAMPLES)
        yield f"{name!r} last", riff(FMT, SAMPLES, other)
        yield f"{name!r} of odd size", riff(FMT, chunk(name, b"o" * 33), SAMPLES)
        yield (
            f"{name!r} of odd size without a pad",
            riff(FMT, chunk(name, b"o" * 33, pad=b""), SAMPLES),
        )
        yield f"{name!r} empty", riff(FMT, chunk(name, b""), SAMPLES)
    yield "fact", riff(FMT, chunk(b"fact", struct.pack("<I", len(TONE))), SAMPLES)
    yield "wrong fact", riff(FMT, chunk(b"fact", struct.pack("<I", 7)), SAMPLES)
    yield "LIST that claims too much", riff(FMT, chunk(b"LIST", INFO, 10**8), SAMPLES)
    yield "trailing zeros", riff(FMT, SAMPLES) + bytes(512)
    yield "trailing tag", riff(FMT, SAMPLES) + b"TAG" + b" " * 125
    yield "a frame cut in two", riff(FMT, chunk(b"data", DATA + b"\1", 0xFFFFFFFF, pad=b""))
    yield "two data chunks", riff(FMT, SAMPLES, SAMPLES)
    yield "fmt of 14 bytes", riff(chunk(b"fmt ", form()[:14]), SAMPLES)
    yield "fmt of 18 bytes", riff(chunk(b"fmt ", form(extra=b"\0\0")), SAMPLES)
    yield "fmt of 20 bytes", riff(chunk(b"fmt ", form(extra=b"\0\0\0\0")), SAMPLES)
    yield "fmt of 40 bytes", riff(chunk(b"fmt ", form(extra=bytes(24))), SAMPLES)
    yield "byte rate of zero", riff(chunk(b"fmt ", form()[:8] + bytes(4) + form()[12:]), SAMPLES)
    yield "block of zero", riff(chunk(b"fmt ", form(frame=0)), SAMPLES)
    long_size = chunk(b"ds64", struct.pack("<QQQI", 1000, len(DATA), len(TONE), 0))
    for mark in (b"RF64", b"BW64"):
        sizes = {"size": 0xFFFFFFFF, "mark": mark}
        yield f"{mark!r}", riff(long_size, FMT, chunk(b"data", DATA, 0xFFFFFFFF), **sizes)
        yield f"{mark!r} with a size", riff(long_size, FMT, SAMPLES, **sizes)
        yield f"{mark!r} without ds64", riff(FMT, chunk(b"data", DATA, 0xFFFFFFFF), **sizes)
        rest = chunk(b"LIST", INFO)
        yield (
            f"{mark!r} with LIST",
            riff(long_size, FMT, chunk(b"data", DATA, 0xFFFFFFFF), rest, **sizes),
        )
    yield "JUNK in place of ds64", riff(chunk(b"JUNK", bytes(28)), FMT, SAMPLES)


def kinds() -> Iterator[tuple[str, bytes]]:
    """Kinds of samples."""
    wide = TONE.astype("<i4")
    eight = ((TONE >> 8) + 128).astype(np.uint8)
    plain: list[tuple[str, int, int, bytes]] = [
        ("16 bits", PCM, 16, DATA),
        ("24 bits", PCM, 24, packed24(TONE)),
        ("32 bits", PCM, 32, (wide << 16).tobytes()),
        ("8 bits", PCM, 8, eight.tobytes()),
        ("float", FLOAT, 32, FLOATS.astype("<f4").tobytes()),
        ("double", FLOAT, 64, FLOATS.tobytes()),
    ]
    for name, tag, bits, data in plain:
        yield name, riff(chunk(b"fmt ", form(tag, bits)), chunk(b"data", data))
        yield (
            f"{name}, extensible",
            riff(chunk(b"fmt ", extensible(tag, bits)), chunk(b"data", data)),
        )
        streamed = chunk(b"data", data, 0xFFFFFFFF)
        yield f"{name}, streamed", riff(chunk(b"fmt ", form(tag, bits)), streamed)
        yield (
            f"{name}, arecord",
            riff(chunk(b"fmt ", form(tag, bits)), chunk(b"data", data, 1 << 31)),
        )
    yield (
        "20 bits in 3 bytes",
        riff(chunk(b"fmt ", form(bits=20, frame=3)), chunk(b"data", packed24(TONE))),
    )
    yield "12 bits in 2 bytes", riff(chunk(b"fmt ", form(bits=12, frame=2)), SAMPLES)
    valid = extensible(bits=24, valid=20)
    yield "20 valid bits", riff(chunk(b"fmt ", valid), chunk(b"data", packed24(TONE)))
    yield (
        "24 valid bits of 32",
        riff(chunk(b"fmt ", extensible(bits=32, valid=24)), chunk(b"data", (wide << 16).tobytes())),
    )
    yield "stereo", riff(chunk(b"fmt ", form(channels=2)), chunk(b"data", stereo(TONE)))
    yield (
        "stereo, no mask",
        riff(chunk(b"fmt ", extensible(channels=2, mask=0)), chunk(b"data", stereo(TONE))),
    )
    six = np.repeat(TONE[:, None], 6, axis=1).tobytes()
    yield "5.1", riff(chunk(b"fmt ", extensible(channels=6, mask=0x3F)), chunk(b"data", six))
    yield "5.1, plain", riff(chunk(b"fmt ", form(channels=6)), chunk(b"data", six))
    for subtype in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"):
        made = encoded(subtype)
        yield subtype, made
        begin = made.index(b"data") + 4
        yield f"{subtype}, streamed", made[:begin] + b"\xff\xff\xff\xff" + made[begin + 4 :]
        yield f"{subtype}, arecord", made[:begin] + b"\0\0\0\x80" + made[begin + 4 :]
    for law, subtype in ((6, "ALAW"), (7, "ULAW")):
        made = encoded(subtype)
        data = made[made.index(b"data") + 8 :][: len(TONE)]
        yield (
            f"{subtype}, extensible",
            riff(chunk(b"fmt ", extensible(law, 8)), chunk(b"data", data)),
        )


COARSE = {"8 bits": 256, "ULAW": 400, "ALAW": 400, "IMA_ADPCM": 7000, "MS_ADPCM": 4000}
ODDITIES = [*containers(), *kinds()]


@pytest.mark.parametrize("data", [d for _, d in ODDITIES], ids=[name for name, _ in ODDITIES])
def test_the_samples_are_found(data: bytes, request: pytest.FixtureRequest) -> None:
    rate, samples = read_wav(io.BytesIO(data))
    name = request.node.callspec.id
    allowed = next((step for kind, step in COARSE.items() if name.startswith(kind)), 1)
    assert rate == read_rate(io.BytesIO(data)) == RATE
    got = samples[: len(TONE)].astype(int)
    assert len(samples) >= len(TONE)
    assert np.abs(got - TONE).max() <= allowed


def test_there_are_more_than_a_hundred() -> None:
    assert len(ODDITIES) > 100
    assert len({name for name, _ in ODDITIES}) == len(ODDITIES)


@pytest.mark.parametrize(
    "make", [lambda rate: write_wav(TONE, rate, {"ISFT": "x"})], ids=["our own"]
)
@pytest.mark.parametrize("rate", [500, 8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_every_usual_rate_is_taken(make: Callable[[int], bytes], rate: int) -> None:
    assert read_rate(io.BytesIO(make(rate))) == rate
