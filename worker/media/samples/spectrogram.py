"""Sheets of spectrograms, with time to the right and frequency upwards."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Sound = npt.NDArray[np.float32]  # (T,) in [-1, 1]
Levels = npt.NDArray[np.float64]  # (frequencies, frames) in dB, the highest frequency first

FRAMES_A_SECOND = 250  # a frame is a pixel wide
WINDOW_SECONDS = 0.032
MAX_SECONDS = 2.0  # longer sounds are cut
HEIGHT = 96  # pixels of a spectrogram
PICTURE = 64  # pixels a side of a picture of one sound
WIDE, TALL = 480, 270  # pixels of a coloured picture of one sound
RANGE_DB = 80  # from the loudest point of a sheet down to black
GAP, LEFT, BOTTOM = 4, 60, 22  # pixels: between spectrograms, of the names, of the axis
TICK_SECONDS = 0.1
INK = (220, 220, 220)
COLOURS = ((0, 0, 4), (81, 18, 124), (183, 55, 121), (252, 137, 97), (252, 253, 191))


def spectrogram_sheet(
    sounds: Sequence[Sound], *, rate: int, columns: int, names: Sequence[str] = ()
) -> Image.Image:
    """Sounds row by row, with the rows' names on the left; silence and padding are black."""
    levels = [spectrogram(sound[: round(MAX_SECONDS * rate)], rate) for sound in sounds]
    top = max(float(each.max()) for each in levels)
    width = max(each.shape[1] for each in levels)
    rows = -(-len(sounds) // columns)
    size = (LEFT + columns * (width + GAP), rows * (HEIGHT + GAP) + BOTTOM)
    sheet = Image.new("RGB", size, (32, 32, 32))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for index, each in enumerate(levels):
        row, column = divmod(index, columns)
        corner = (LEFT + column * (width + GAP), row * (HEIGHT + GAP))
        sheet.paste(_panel(np.clip(1 + (each - top) / RANGE_DB, 0, 1), width), corner)
    for row, name in enumerate(names[:rows]):
        middle = row * (HEIGHT + GAP) + HEIGHT // 2
        draw.text((LEFT - 6, middle), name[:8], fill=INK, font=font, anchor="rm")
    for column in range(columns):
        _axis(draw, LEFT + column * (width + GAP), rows * (HEIGHT + GAP), width)
    draw.text((4, size[1] - 18), f"{rate / 2000:.3g} kHz", fill=INK, font=font)
    return sheet


def spectrogram(sound: Sound, rate: int) -> Levels:
    """The short-time Fourier transform's power in dB, with `FRAMES_A_SECOND` Hann windows."""
    size = max(round(WINDOW_SECONDS * rate), 8)
    frames = max(round(len(sound) / rate * FRAMES_A_SECOND), 1)
    middles = np.rint(np.arange(frames) * rate / FRAMES_A_SECOND).astype(np.int64)
    padded = np.pad(sound, (size // 2, size))
    windows = padded[middles[:, None] + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2  # (frames, frequencies)
    levels: Levels = 10 * np.log10(power.T[::-1] + 1e-12)
    return levels


def spectrogram_picture(sound: Any, rate: int) -> npt.NDArray[np.uint8]:
    """The first second of a sound as a grey picture (PICTURE, PICTURE, 1).

    White is 20 dB, black is `RANGE_DB` below it and what follows the sound.
    """
    levels = spectrogram(np.asarray(sound, np.float32)[:rate], rate) - 20
    grey = (np.clip(1 + levels / RANGE_DB, 0, 1) * 255).astype(np.uint8)
    width = max(1, round(PICTURE * min(len(sound) / rate, 1)))
    scaled = Image.fromarray(grey).resize((width, PICTURE), Image.Resampling.BOX)
    picture = np.zeros((PICTURE, PICTURE, 1), np.uint8)
    picture[:, :width, 0] = np.asarray(scaled)
    return picture


def spectrogram_image(sound: Sound, rate: int) -> Image.Image:
    """The first seconds of a sound as a coloured picture (WIDE, TALL), without names or axes."""
    levels = spectrogram(sound[: round(MAX_SECONDS * rate)], rate)
    panel = _panel(np.clip(1 + (levels - levels.max()) / RANGE_DB, 0, 1), levels.shape[1])
    return panel.resize((WIDE, TALL), Image.Resampling.BICUBIC)


def _panel(levels: Levels, width: int) -> Image.Image:
    """An image of levels from 0 (black) to 1 (bright), scaled to `HEIGHT` and padded to `width`."""
    image = Image.fromarray(levels.astype(np.float32))
    stretched = image.resize((image.width, HEIGHT), Image.Resampling.BILINEAR)
    panel = np.zeros((HEIGHT, width))
    panel[:, : image.width] = np.asarray(stretched)
    points = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(panel, points, channel) for channel in zip(*COLOURS, strict=True)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _axis(draw: ImageDraw.ImageDraw, left: int, top: int, width: int) -> None:
    """Draw ticks under a column, and its duration."""
    step = round(TICK_SECONDS * FRAMES_A_SECOND)
    for x in range(0, width, step):
        draw.line((left + x, top, left + x, top + 4), fill=INK)
    font = ImageFont.load_default(13)
    text = f"{width / FRAMES_A_SECOND:.2f} s"
    draw.text((left + width, top + 5), text, fill=INK, font=font, anchor="ra")
