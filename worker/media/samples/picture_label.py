"""A label that people see on a picture: white letters in a black box, in the lower right corner.

Letters come from Pillow's own font, which has Latin ones. The two Chinese characters of the usual
label are drawn here stroke by stroke, so that no font has to be installed.
"""

import math
import re
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from db.errors import Refused
from worker.media.samples.tags import Label

Pixels = npt.NDArray[np.uint8]
_Line = tuple[tuple[float, float], ...]

WRITABLE = re.compile(r"[ -~生成]{1,40}")
SMALLEST = 10  # pixels of a letter's height that is still legible
MOST = 0.25  # of a picture that its label may cover
FINE = 4  # drawn so many times as large, then averaged
_CAPITALS = 0.7  # the height of the font's capitals, by its size
_ALIKE = 0.8  # the correlation with a label that was encoded again, at least

# strokes of a character in a square of side 1, from its upper left corner
_STROKES: MappingProxyType[str, tuple[_Line, ...]] = MappingProxyType(
    {
        "生": (
            ((0.30, 0.05), (0.10, 0.42)),
            ((0.22, 0.27), (0.86, 0.27)),
            ((0.18, 0.58), (0.84, 0.58)),
            ((0.52, 0.04), (0.52, 0.94)),
            ((0.04, 0.94), (0.96, 0.94)),
        ),
        "成": (
            ((0.15, 0.26), (0.94, 0.26)),
            ((0.16, 0.26), (0.15, 0.60), (0.03, 0.96)),
            ((0.16, 0.52), (0.44, 0.52), (0.42, 0.80), (0.30, 0.78)),
            ((0.56, 0.03), (0.60, 0.45), (0.74, 0.78), (0.93, 0.96), (0.97, 0.76)),
            ((0.84, 0.42), (0.68, 0.70), (0.46, 0.94)),
            ((0.72, 0.05), (0.84, 0.17)),
        ),
    }
)


def check_text(text: str) -> None:
    """Raise `Refused` for a label that cannot be drawn."""
    if not WRITABLE.fullmatch(text):
        raise Refused(
            f"the label {text!r} cannot be drawn",
            remedy="use 1 to 40 ASCII characters, 生 and 成",
        )


def room_for(label: Label, width: int, height: int) -> bool:
    """Whether a picture has room for a legible label."""
    box = _box(label.text, _letter_height(label, width, height))
    fits = box.shape[0] <= height and box.shape[1] <= width
    return fits and box.size <= MOST * width * height


@lru_cache(maxsize=32)  # pictures of a job are of one size
def misfit(label: Label, width: int, height: int) -> str:
    """Why a picture has no room for a label; empty if it has."""
    if room_for(label, width, height):
        return ""
    # larger ones, of larger letters, have as little room as the last of these
    sides = range(1, math.ceil(SMALLEST / (1.1 * label.share)) + 1)
    side = next((each for each in sides if room_for(label, each, each)), None)
    needs = f"needs {side}x{side}" if side else "is too large for any: shorten it, or its share"
    return (
        f"{width}x{height} pixels have no room for the legible label {label.text!r}, which {needs}"
    )


def with_label(picture: Pixels, label: Label) -> Pixels:
    """A copy of a (H, W, C) picture that has room for the label, with the label."""
    height, width, _ = picture.shape
    box = _box(label.text, _letter_height(label, width, height))
    labelled = picture.copy()
    labelled[height - box.shape[0] :, width - box.shape[1] :] = box[:, :, None]
    return labelled


def has_label(picture: Pixels, label: Label) -> bool:
    """Whether a (H, W) or (H, W, C) picture has this label, perhaps encoded again at its size."""
    height, width = picture.shape[:2]
    if not room_for(label, width, height):
        return False
    box = _box(label.text, _letter_height(label, width, height)).astype(np.float32)
    corner = picture[height - box.shape[0] :, width - box.shape[1] :].astype(np.float32)
    if corner.ndim == 3:
        corner = corner[..., :3].mean(axis=2)
    spread = float(box.std() * corner.std())
    alike = float(((box - box.mean()) * (corner - corner.mean())).mean())
    return spread > 0 and alike / spread >= _ALIKE


def _letter_height(label: Label, width: int, height: int) -> int:
    # the strokes of a character do not fill its square
    return max(SMALLEST, math.ceil(1.1 * label.share * min(width, height)))


@lru_cache(maxsize=32)
def _box(text: str, letters: int) -> Pixels:
    """The label, (H, W), with letters that are so many pixels high."""
    size, margin = letters * FINE, letters * FINE // 4
    font = ImageFont.load_default(size / _CAPITALS)
    advances = [size * 1.1 if each in _STROKES else font.getlength(each) for each in text]
    width = FINE * math.ceil((sum(advances) + 2 * margin) / FINE)
    height = FINE * math.ceil((size * 1.15 + 2 * margin) / FINE)
    canvas = Image.new("L", (width, height), 0)
    draw, left = ImageDraw.Draw(canvas), float(margin)
    for each, advance in zip(text, advances, strict=True):
        if each in _STROKES:
            _draw_strokes(draw, each, left, margin, size)
        else:
            draw.text((left, margin + size), each, fill=255, font=font, anchor="ls")
        left += advance
    return np.asarray(canvas.resize((width // FINE, height // FINE), Image.Resampling.BOX))


def _draw_strokes(
    draw: ImageDraw.ImageDraw, character: str, left: float, top: float, size: int
) -> None:
    width = max(FINE, round(size / 11))
    for line in _STROKES[character]:
        points = [(left + x * size, top + y * size) for x, y in line]
        draw.line(points, fill=255, width=width, joint="curve")
