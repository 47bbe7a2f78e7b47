"""Texts as a picture, for a report that is one."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

FONT = Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
SIDE, SIZE, LEADING, MARGIN = 900, 19, 25, 14  # pixels
LINES = 4  # of each text, at most
UNKNOWN = "\u25a1"  # in place of characters that the font lacks
INK, GREY, PAPER = (27, 31, 36), (87, 96, 106), (246, 248, 250)


def text_sheet(texts: Sequence[tuple[str, str]]) -> Image.Image:
    """Headings and the beginnings of their texts, line by line, on a square picture."""
    sheet = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(str(FONT), SIZE)
    top = MARGIN
    for heading, text in texts:
        draw.text((MARGIN, top), _drawable(heading), fill=GREY, font=font)
        lines = list(_wrapped(_drawable(text), font))
        if len(lines) > LINES:
            lines[LINES - 1 :] = [f"{lines[LINES - 1]} ..."]
        for row, line in enumerate(lines, start=1):
            draw.text((MARGIN, top + row * LEADING), line, fill=INK, font=font)
        top += (len(lines) + 1) * LEADING + LEADING // 2
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont) -> Iterator[str]:
    """Lines that fit the sheet, broken where they must be."""
    room = SIDE - 2 * MARGIN - font.getlength(" ...")
    for part in text.splitlines() or [""]:
        line = part
        while font.getlength(line) > room:
            cut = next(n for n in range(len(line), 0, -1) if font.getlength(line[:n]) <= room)
            space = line.rfind(" ", 0, cut + 1)
            cut = space if space > 0 else cut
            yield line[:cut]
            line = line[cut:].lstrip(" ")
        yield line


def _drawable(text: str) -> str:
    """The text with `UNKNOWN` for what the font lacks, and spaces for tabs."""
    known, lines = _characters(), "\n".join(text.expandtabs(4).splitlines())
    return "".join(each if ord(each) in known or each == "\n" else UNKNOWN for each in lines)


@cache
def _characters() -> frozenset[int]:
    return frozenset(FT2Font(str(FONT)).get_charmap())
