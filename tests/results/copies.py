"""Changed copies of samples, as people and platforms change them."""

import json
import random
from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
import soundfile
import soxr
from PIL import Image

Change = Callable[[bytes], tuple[str, bytes]]  # a sample to the suffix and the bytes of its copy

REPLACED = 10  # every tenth word
WORDS = [
    "river",
    "stone",
    "window",
    "morning",
    "paper",
    "garden",
    "silver",
    "table",
    "winter",
    "answer",
]


def flipped(data: bytes, *, behind: bytes) -> bytes:
    """The file with one byte changed, a little behind its content's name: all bits are turned.

    Of a text, the case of a letter, so that it stays one.
    """
    at = data.index(behind) + 24
    if not data.startswith(b"{"):
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
    while not chr(data[at]).isalpha() or not data[at : at + 1].isascii() or data[at - 1] in b"\\":
        at += 1
    return data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]


def picture(data: bytes, change: Callable[[Image.Image], Image.Image], form: str) -> bytes:
    """A picture changed and encoded again, without any metadata."""
    target = BytesIO()
    with Image.open(BytesIO(data)) as image:
        bare = Image.fromarray(np.asarray(image))
    change(bare).save(target, form, **({"quality": 75} if form == "JPEG" else {}))
    return target.getvalue()


def _cropped(image: Image.Image) -> Image.Image:
    """Without a twentieth at each side: a tenth of the width and of the height."""
    edge = image.width / 20
    return image.crop((round(edge), round(edge), round(image.width - edge), round(19 * edge)))


def sound(data: bytes, change: Callable[[np.ndarray, int], np.ndarray], form: str) -> bytes:
    """A sound changed and encoded again, at half the rate if it has half the length."""
    samples, rate = soundfile.read(BytesIO(data), dtype="float32")
    made, target = change(samples, rate), BytesIO()
    halved = len(made) <= len(samples) * 0.6
    soundfile.write(target, made, rate // 2 if halved else rate, format=form)
    return target.getvalue()


def text_of(data: bytes) -> str:
    """The text of a sample."""
    return json.loads(data)["text"]


def _reordered(text: str) -> str:
    """The lines from the last to the first; of one line, its second half first."""
    lines = text.split("\n")
    half = len(text) // 2
    return "\n".join(lines[::-1]) if len(lines) > 2 else text[half:] + " " + text[:half]


def _replaced(text: str) -> str:
    draw, words = random.Random(len(text)), text.split(" ")
    for place in range(0, len(words), REPLACED):
        words[place] = draw.choice(WORDS)
    return " ".join(words)


def _plain(change: Callable[[str], str]) -> Change:
    return lambda data: (".txt", change(text_of(data)).encode())


PICTURES: Mapping[str, Change] = {
    "one byte flipped": lambda data: (".png", flipped(data, behind=b"IDAT")),
    "JPEG 75": lambda data: (".jpg", picture(data, lambda it: it, "JPEG")),
    "half the size": lambda data: (
        ".png", picture(data, lambda it: it.resize((it.width // 2, it.height // 2)), "PNG")
    ),
    "cropped by 10%": lambda data: (".png", picture(data, _cropped, "PNG")),
    "metadata stripped": lambda data: (".png", picture(data, lambda it: it, "PNG")),
}  # fmt: skip
SOUNDS: Mapping[str, Change] = {
    "one byte flipped": lambda data: (".wav", flipped(data, behind=b"data")),
    "Ogg Vorbis": lambda data: (".ogg", sound(data, lambda it, rate: it, "OGG")),
    "half the rate": lambda data: (
        ".wav", sound(data, lambda it, rate: soxr.resample(it, rate, rate // 2), "WAV")
    ),
    "cut by 10%": lambda data: (".wav", sound(data, lambda it, rate: it[len(it) // 10 :], "WAV")),
    "metadata stripped": lambda data: (".wav", sound(data, lambda it, rate: it, "WAV")),
}  # fmt: skip
TEXTS: Mapping[str, Change] = {
    "one byte flipped": lambda data: (".json", flipped(data, behind=b'"text":')),
    "cut in half": _plain(lambda text: text[: len(text) // 2]),
    "re-ordered": _plain(_reordered),
    "one word in ten replaced": _plain(_replaced),
    "metadata stripped": _plain(lambda text: text),
}
CHANGES = {"image": PICTURES, "audio": SOUNDS, "text": TEXTS}
