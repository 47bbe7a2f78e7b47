"""PNG, JPEG and other images with the oddities of real programs."""

import io
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from worker.cleaning.steps import Chain
from worker.media.sources.annotations import Annotations
from worker.media.sources.image_files import read_headers, read_images
from worker.source_files.members import Member, Rejects
from worker.source_files.source import Source

SIDE = 32
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def halves(mode: str = "RGB") -> Image.Image:
    """Red at the left, blue at the right; in grey, black and white."""
    image = Image.new("RGB", (SIDE, SIDE), COLOURS["red"])
    image.paste(COLOURS["blue"], (SIDE // 2, 0, SIDE, SIDE))
    return image.convert(mode)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def chunk(name: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    total = zlib.crc32(name + data) if crc is None else crc
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", total)


def png(depth: int, kind: int, rows: list[bytes], *before: bytes, behind: bytes = b"") -> bytes:
    """A PNG made here: bit depth, colour type, unfiltered rows, chunks before the data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return SIGNATURE + head + b"".join(before) + data + behind + chunk(b"IEND", b"")


def with_chunks(*chunks: bytes) -> bytes:
    """A plain PNG with more chunks before its data."""
    plain = saved(halves(), "PNG")
    at = plain.index(b"IDAT") - 4
    return plain[:at] + b"".join(chunks) + plain[at:]


RGB = [bytes(COLOURS["red"]) * (SIDE // 2) + bytes(COLOURS["blue"]) * (SIDE // 2)] * SIDE
GREY = [bytes([255]) * (SIDE // 2) + bytes(SIDE // 2)] * SIDE
PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))
INDEXED = [bytes([0]) * (SIDE // 2) + bytes([1]) * (SIDE // 2)] * SIDE


def pngs() -> Iterator[tuple[str, bytes]]:
    yield "plain", saved(halves(), "PNG")
    for level in (0, 1, 9):
        yield f"level {level}", saved(halves(), "PNG", compress_level=level)
    yield "written by hand", png(8, 2, RGB)
    yield "16 bits a channel", png(16, 2, [b"".join(bytes([b, b]) for b in row) for row in RGB])
    yield "with alpha", saved(halves("RGBA"), "PNG")
    yield (
        "16 bits with alpha",
        png(
            16,
            6,
            [
                b"".join(
                    bytes([b, b]) for i in range(0, SIDE * 3, 3) for b in (*row[i : i + 3], 255)
                )
                for row in RGB
            ],
        ),
    )
    yield "palette", png(8, 3, INDEXED, PALETTE)
    for depth in (1, 2, 4):
        packed = [packed_row(row, depth) for row in INDEXED]
        yield f"palette of {depth} bits", png(depth, 3, packed, PALETTE)
    yield "palette, opaque", png(8, 3, INDEXED, PALETTE, chunk(b"tRNS", b"\xff\xff"))
    yield "palette of 256", saved(halves().convert("P", palette=Image.Palette.ADAPTIVE), "PNG")
    many = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]) + bytes(3 * 254))
    yield "palette longer than needed", png(8, 3, INDEXED, many)
    yield "suggested palette", with_chunks(PALETTE)
    for name in (b"tEXt", b"zTXt", b"iTXt", b"gAMA", b"cHRM", b"pHYs", b"tIME", b"iCCP", b"eXIf"):
        yield f"{name.decode()} of nothing", with_chunks(chunk(name, b""))
        yield f"{name.decode()} of noise", with_chunks(chunk(name, bytes(range(200))))
        yield f"{name.decode()} with a wrong sum", with_chunks(chunk(name, b"a\0b", crc=1))
    yield "huge comment", with_chunks(chunk(b"tEXt", b"workflow\0" + b"x" * (3 << 20)))
    packed_comment = b"parameters\0\0" + zlib.compress(b"x" * (3 << 20))
    yield "huge packed comment", with_chunks(chunk(b"zTXt", packed_comment))
    yield "two thousand comments", with_chunks(*[chunk(b"tEXt", b"k\0v")] * 2000)
    yield "private chunks", with_chunks(chunk(b"vpAg", b"\0" * 9), chunk(b"caNv", b"x" * 16))
    yield (
        "animated",
        saved(halves(), "PNG", save_all=True, append_images=[halves("L").convert("RGB")]),
    )
    yield "interlaced data in many chunks", in_parts(saved(halves(), "PNG"))
    yield "bytes behind the end", saved(halves(), "PNG") + b"PK\3\4 more"
    yield "no end", saved(halves(), "PNG")[:-12]
    yield "broken chunk behind the data", png(8, 2, RGB, behind=chunk(b"tEXt", b"x", crc=7))


def packed_row(row: bytes, depth: int) -> bytes:
    bits = "".join(f"{value:0{depth}b}" for value in row)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def in_parts(data: bytes) -> bytes:
    """The same PNG with its data in chunks of 20 bytes, one of them empty."""
    at = data.index(b"IDAT") - 4
    (size,) = struct.unpack_from(">I", data, at)
    body = data[at + 8 : at + 8 + size]
    parts = [chunk(b"IDAT", body[i : i + 20]) for i in range(0, size, 20)]
    return data[:at] + parts[0] + chunk(b"IDAT", b"") + b"".join(parts[1:]) + data[at + 12 + size :]


def segment(mark: int, data: bytes) -> bytes:
    return bytes([0xFF, mark]) + struct.pack(">H", len(data) + 2) + data


def jpegs() -> Iterator[tuple[str, bytes]]:
    plain = saved(halves(), "JPEG", quality=95)
    yield "plain", plain
    for name, options in {
        "progressive": {"progressive": True}, "optimised": {"optimize": True},
        "subsampled": {"subsampling": 2}, "not subsampled": {"subsampling": 0},
        "restart markers": {"restart_marker_blocks": 1}, "72 dpi": {"dpi": (72, 72)},
        "with a profile": {"icc_profile": b"x" * 70_000}, "comment": {"comment": b"\xff\xd8"},
    }.items():  # fmt: skip
        yield name, saved(halves(), "JPEG", quality=95, **options)
    yield "CMYK", saved(halves("CMYK"), "JPEG", quality=95)
    yield "YCCK-like with Adobe's mark", saved(halves("CMYK"), "JPEG", quality=95, progressive=True)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        yield (
            f"orientation {orientation}",
            saved(turned(orientation), "JPEG", quality=95, exif=exif),
        )
    for orientation in (0, 9, 255):
        exif = Image.Exif()
        exif[0x112] = orientation
        yield (
            f"orientation {orientation}, which is none",
            saved(halves(), "JPEG", quality=95, exif=exif),
        )
    for name, data in {
        "empty": b"", "noise": bytes(range(256)), "a lying size": b"II*\0\xff\xff\xff\x7f",
        "no directory": b"II*\0\x08\0\0\0", "cut": b"MM\0*\0\0\0\x08\0\x05\x01\x12",
    }.items():  # fmt: skip
        yield f"EXIF with {name}", plain[:2] + segment(0xE1, b"Exif\0\0" + data) + plain[2:]
    yield "XMP", plain[:2] + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") + plain[2:]
    yield "Photoshop", plain[:2] + segment(0xED, b"Photoshop 3.0\0" + bytes(500)) + plain[2:]
    yield "MPF", plain[:2] + segment(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0") + plain[2:]
    yield "empty comment", plain[:2] + segment(0xFE, b"") + plain[2:]
    yield "fill bytes", plain[:2] + b"\xff\xff\xff" + plain[3:]
    yield "bytes behind the end", plain + b"SEFT" + bytes(3000)
    yield "a second picture behind", plain + plain
    yield "PNG called JPEG", saved(halves(), "PNG")
    yield "WebP called JPEG", saved(halves(), "WEBP", lossless=True)


def turned(orientation: int) -> Image.Image:
    """A picture whose EXIF `orientation` turns it upright."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }.get(orientation)  # fmt: skip
    return halves().transpose(back) if back is not None else halves()


def others() -> Iterator[tuple[str, bytes]]:
    yield "GIF", saved(halves(), "GIF")
    yield (
        "GIF, animated",
        saved(halves(), "GIF", save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE))]),
    )
    yield "GIF, interlaced", saved(halves().convert("P"), "GIF", interlace=1)
    yield "GIF with a comment", saved(halves(), "GIF", comment=b"x" * 255)
    yield "WebP, lossless", saved(halves(), "WEBP", lossless=True)
    yield "WebP, lossy", saved(halves(), "WEBP", quality=95)
    yield (
        "WebP, animated",
        saved(
            halves(),
            "WEBP",
            lossless=True,
            save_all=True,
            append_images=[Image.new("RGB", (SIDE, SIDE))],
        ),
    )
    yield "WebP with EXIF of noise", saved(halves(), "WEBP", lossless=True, exif=b"Exif\0\0noise")
    yield "BMP", saved(halves(), "BMP")
    yield "BMP of a palette", saved(halves().convert("P", palette=Image.Palette.ADAPTIVE), "BMP")
    rows = b"".join(
        bytes(
            [c for p in range(SIDE) for c in (COLOURS["red"] if p < 16 else COLOURS["blue"])[::-1]]
        )
        for _ in range(SIDE)
    )
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, -SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "BMP from the top", b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + info + rows
    padded = b"".join(
        bytes([*(COLOURS["red"] if p < 16 else COLOURS["blue"])[::-1], 0])
        for _ in range(SIDE)
        for p in range(SIDE)
    )
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 32, 0, 0, 0, 0, 0, 0)
    yield (
        "BMP of 32 bits with an empty byte",
        b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + info + padded,
    )
    core = struct.pack("<IHHHH", 12, SIDE, SIDE, 1, 24)
    yield "BMP of OS/2", b"BM" + struct.pack("<IHHI", 26 + len(rows), 0, 0, 26) + core + rows


COLOURED = [
    *((f"PNG, {name}", data, ".png") for name, data in pngs()),
    *((f"JPEG, {name}", data, ".jpg") for name, data in jpegs()),
    *((name, data, f".{name[:4].strip(', ').lower()}") for name, data in others()),
]


def one(data: bytes, suffix: str, mode: str | None = None) -> tuple[np.ndarray | None, Rejects]:
    """The pixels of a picture as a dataset of one, and what was left out."""

    def opener(max_bytes: int) -> io.BytesIO:
        return io.BytesIO(data)

    member = Member(f"a{suffix}", opener)
    source, rejects = Source(Path("set"), False, lambda _: iter([member])), Rejects()
    headers = read_headers(source)
    chain = Chain([], min_size=1, unit="pixels")
    read = partial(read_images, source, headers.names.layout(), Annotations(), rejects, chain)
    items = list(read(size=SIDE, mode=mode or headers.mode))
    return (items[0].pixels if items else None), rejects


def test_there_are_more_than_a_hundred():
    assert len(COLOURED) > 100
    assert len({name for name, *_ in COLOURED}) == len(COLOURED)


@pytest.mark.parametrize(
    ("data", "suffix"), [each[1:] for each in COLOURED], ids=[each[0] for each in COLOURED]
)
def test_the_picture_is_red_at_the_left_and_blue_at_the_right(data, suffix):
    pixels, rejects = one(data, suffix)
    assert not rejects.first
    assert pixels.shape == (SIDE, SIDE, 3)
    for column, colour in ((4, "red"), (SIDE - 5, "blue")):
        assert np.abs(pixels[SIDE // 2, column].astype(int) - COLOURS[colour]).max() < 16


@pytest.mark.parametrize(
    "data",
    [
        png(8, 0, GREY),
        png(16, 0, [b"".join(bytes([b, b]) for b in row) for row in GREY]),
        png(1, 0, [packed_row(bytes(value // 255 for value in row), 1) for row in GREY]),
        png(2, 0, [packed_row(bytes(value // 85 for value in row), 2) for row in GREY]),
        png(4, 0, [packed_row(bytes(value // 17 for value in row), 4) for row in GREY]),
        png(8, 4, [b"".join(bytes([b, 255]) for b in row) for row in GREY]),
        png(8, 0, GREY, chunk(b"tRNS", b"\0\x07")),
    ],
    ids=["8 bits", "16 bits", "1 bit", "2 bits", "4 bits", "with alpha", "a transparent shade"],
)  # fmt: skip
def test_grey_pictures_of_any_depth_stay_grey(data):
    pixels, _ = one(data, ".png")
    assert pixels.shape == (SIDE, SIDE, 1)
    assert (pixels[5, 3, 0], pixels[5, 28, 0]) == (255, 0)


@pytest.mark.parametrize(
    "data",
    [
        png(8, 3, INDEXED, PALETTE, chunk(b"tRNS", b"\0\0")),
        png(8, 2, [bytes([1, 2, 3]) * SIDE] * SIDE, chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))),
        saved(Image.new("RGBA", (SIDE, SIDE), (10, 20, 30, 0)), "PNG"),
        saved(Image.new("LA", (SIDE, SIDE), (10, 0)), "PNG"),
        saved(Image.new("RGBA", (SIDE, SIDE), (10, 20, 30, 0)), "WEBP", lossless=True),
        saved(Image.new("RGBA", (SIDE, SIDE), (10, 20, 30, 0)), "GIF"),
    ],
    ids=["palette", "colour key", "alpha", "grey and alpha", "WebP", "GIF"],
)  # fmt: skip
def test_what_is_transparent_becomes_white(data):
    pixels, _ = one(data, ".png", "RGB")
    assert pixels.min() == 255


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (saved(halves(), "PNG")[:60], "cannot be read as an image"),
        (saved(halves(), "JPEG")[:300], "cannot be read as an image"),
        (saved(halves(), "JPEG")[:-2], "truncated"),
        (saved(halves(), "TIFF"), "in truth a TIFF image; convert it to PNG"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "a Git LFS placeholder",
        ),
        (b"<html>404</html>", "a web page"),
        (b"", "none of PNG"),
    ],
    ids=["cut PNG", "cut JPEG", "JPEG without an end", "TIFF", "Git LFS", "a web page", "nothing"],
)
def test_what_lost_pixels_or_never_had_any_is_left_out_with_its_reason(data, says):
    pixels, rejects = one(data, ".png")
    assert pixels is None
    assert says in rejects.first[0].reason


def test_the_limits_of_the_library_are_its_own():
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20
