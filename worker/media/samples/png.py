"""Samples as PNG files with their records in text chunks, for Genmill and for other tools.

Written here, because what a library does for each small image costs several times what zlib does:
Pillow takes four times as long for 28x28 pixels, and twelve times with the text. One filter for a
whole image, computed for all images at once, makes files as small as Pillow's row by row.
Source: Portable Network Graphics, third edition, W3C 2025.
"""

import json
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from db.errors import BadInput, NonFinite, raise_outage
from worker.media.samples.containers import SampleRecord, describe
from worker.media.samples.png_chunks import PARAMETERS, SIGNATURE, chunk, metadata, tag_chunks
from worker.media.samples.record import Record, SharedRecord, parse_record

Pixels = npt.NDArray[np.uint8]

COLOUR_TYPES = {1: 0, 3: 2}  # by channels: grey, RGB
NONE, UP = 0, 2  # filters
_MISLEADING = re.compile("[,:\n]")
_END = chunk(b"IEND", b"")
MOST_PIXELS = 1 << 24  # of a picture that may be a sample: read from anybody's files
LEVEL = 3  # of zlib; beyond it, time grows faster than files shrink


def encode_png(samples: Sequence[SampleRecord]) -> list[bytes]:
    """A PNG file of each uint8 (H, W, 1 or 3) image, all of one shape, with its record inside."""
    images: list[Pixels] = []
    for sample in samples:
        image = sample.output
        if isinstance(image, str) or image.dtype != np.uint8 or image.ndim != 3:
            raise NonFinite(
                f"sample {sample.index} is {describe(image)}, not a uint8 (H, W, C) image"
            )
        images.append(image)
    batch = np.stack(images)
    start = _header(*batch.shape[1:])
    size = batch.shape[2], batch.shape[1]
    return [
        b"".join(
            (
                start,
                _texts(sample.shared, sample.index, size),
                chunk(b"IDAT", zlib.compress(rows, LEVEL)),
                _END,
            )
        )
        for sample, rows in zip(samples, _filtered(batch), strict=True)
    ]


def parameters(record: Mapping[str, Any], size: tuple[int, int]) -> str:
    """The text that AUTOMATIC1111's web UI writes into PNG files; `size` is (width, height).

    A line with the prompt (here the label if there is no prompt), then a line of `Key: value` pairs
    that begins with `Steps`, by which readers find it.
    """
    before, after = _parameters(record, size)
    return f"{before}{record['index']}{after}"


def read_png_record(source: Path | bytes) -> Record:
    """The record inside a PNG file made by Genmill; `BadInput` if there is none."""
    name = str(source) if isinstance(source, Path) else "the image"
    try:
        data = source.read_bytes() if isinstance(source, Path) else source
        found = dict(metadata(data).texts)
    except (OSError, BadInput) as error:
        raise_outage(error)
        raise BadInput(f"{name} is not a readable PNG: {error}") from None
    if (text := found.get("genmill")) is None:
        raise BadInput(f"{name} was not made by Genmill: it has no text chunk 'genmill'")
    return parse_record(text, name)


def has_texts(data: bytes, sample: SampleRecord) -> bool:
    """Whether a file has a sample's text chunks, byte for byte, where `encode_png` writes them.

    They are behind the header and the tags; the pixels follow, and end the file.
    """
    height, width, channels = np.asarray(sample.output).shape
    texts, at = _texts(sample.shared, sample.index, (width, height)), tag_chunks(data).stop
    after = at + len(texts)
    pixels = int.from_bytes(data[after : after + 4])
    return (
        data.startswith(_header(height, width, channels))
        and data.startswith(texts, at)
        and data.endswith(_END)
        and after + 12 + pixels + len(_END) == len(data)
    )


def read_pixels(data: bytes) -> Pixels:
    """The pixels of a PNG file, (H, W) or (H, W, C); `BadInput` if it is damaged."""
    width, height = struct.unpack_from(">II", data[:24].ljust(24, b"\0"), 16)
    if width * height > MOST_PIXELS:
        raise BadInput(f"the image has {width}x{height} pixels, more than any sample")
    try:
        with Image.open(BytesIO(data), formats=["PNG"]) as image:
            return np.asarray(image)
    except UnidentifiedImageError:
        raise BadInput("the image is not a readable PNG") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise_outage(error)
        raise BadInput(f"the image is not a readable PNG: {error}") from None


def _filtered(batch: Pixels) -> Pixels:
    """Images (B, H, W, C) as the bytes to compress, (B, H, 1 + W * C), each row after its filter.

    An image is stored as it is, or as differences to the row above if fewer of those are nonzero.
    """
    count, height, width, channels = batch.shape
    plain = batch.reshape(count, height, width * channels)
    rows = np.empty((count, height, 1 + width * channels), np.uint8)
    rows[:, :, 0], rows[:, :, 1:] = UP, plain
    rows[:, 1:, 1:] -= plain[:, :-1]
    flat = np.count_nonzero(plain, axis=(1, 2)) <= np.count_nonzero(rows[:, :, 1:], axis=(1, 2))
    rows[flat, :, 0] = NONE
    rows[flat, :, 1:] = plain[flat]
    return rows


@lru_cache(maxsize=64)
def _header(height: int, width: int, channels: int) -> bytes:
    fields = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", fields)


@lru_cache(maxsize=512)  # a batch of samples is written, then read back
def _texts(shared: SharedRecord, index: int, size: tuple[int, int]) -> bytes:
    """The text chunks of a sample."""
    number = b"%d" % index
    parts = _text_parts(shared, size)
    return b"".join([chunk(name, number.join(ends)) for name, ends in parts])


@lru_cache(maxsize=1024)
def _text_parts(
    shared: SharedRecord, size: tuple[int, int]
) -> list[tuple[bytes, tuple[bytes, bytes]]]:
    """The name of each text chunk, and its content before and after the index."""
    return [
        _text_part(PARAMETERS, _parameters(shared.record, size)),
        _text_part("genmill", shared.parts),
    ]


def _text_part(keyword: str, parts: tuple[str, str]) -> tuple[bytes, tuple[bytes, bytes]]:
    before, after = parts
    try:
        return b"tEXt", (f"{keyword}\0{before}".encode("latin-1"), after.encode("latin-1"))
    except UnicodeError:
        # not compressed, of no language
        return b"iTXt", (f"{keyword}\0\0\0\0\0{before}".encode(), after.encode())


def _parameters(record: Mapping[str, Any], size: tuple[int, int]) -> tuple[str, str]:
    """The text of `parameters` before and after the index."""

    def quoted(value: Any) -> str:
        # as AUTOMATIC1111 does, where a comma, colon or line break would mislead a reader
        shown = str(value)
        return json.dumps(shown, ensure_ascii=False) if _MISLEADING.search(shown) else shown

    def joined(pairs: Mapping[str, Any]) -> str:
        return ", ".join(f"{key}: {quoted(value)}" for key, value in pairs.items())

    before = {
        "Steps": 1,
        "Sampler": record["family"],
        "Seed": record["seed"],
        "Size": f"{size[0]}x{size[1]}",
        "Model hash": record["weights_sha256"][:10],
        "Model": record["model"],
    }
    after = {
        **{name.replace("_", " ").capitalize(): v for name, v in record["sampling"].items()},
        "Version": f"genmill {record['genmill']}",
        "Source type": "AI-generated",
    }
    text = record["prompt"] or record["label"] or ""
    return f"{text}\n{joined(before)}, Sample: ", f", {joined(after)}"
