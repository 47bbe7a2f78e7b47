"""MNIST as an image folder with captions of digit, stroke thickness and slant."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.results.classifier import read_idx

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TAIL = 0.2  # share of a digit's pictures that count as thin, as bold, and so on


def thickness(images: np.ndarray) -> np.ndarray:
    """Stroke thickness in pixels of uint8 (N, H, W): twice the area over the outline's length."""
    shades = np.pad(images, ((0, 0), (1, 1), (1, 1))).astype(np.float64) / 255
    outline = sum(np.abs(np.diff(shades, axis=axis)).sum((1, 2)) for axis in (1, 2))
    return 2 * shades.sum((1, 2)) / outline


def slant(images: np.ndarray) -> np.ndarray:
    """Slant of uint8 (N, H, W): the moments' mu11 / mu02, positive to the right."""
    shades = images.astype(np.float64)
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    mass = shades.sum((1, 2))[:, None, None]
    down = y - (shades * y).sum((1, 2), keepdims=True) / mass
    right = x - (shades * x).sum((1, 2), keepdims=True) / mass
    return -(shades * right * down).sum((1, 2)) / (shades * down**2).sum((1, 2))


def write_captioned_mnist(mnist: Path, path: Path, *, count: int) -> None:
    """A zip of the first `count` training digits as PNG, and their `metadata.jsonl`."""
    images = read_idx(mnist / "train-images-idx3-ubyte.gz")[:count]
    labels = read_idx(mnist / "train-labels-idx1-ubyte.gz")[:count]
    rows = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, (image, text) in enumerate(zip(images, captions(images, labels), strict=True)):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG", compress_level=1)
            archive.writestr(f"{number:05d}.png", png.getvalue())
            rows.append(json.dumps({"file_name": f"{number:05d}.png", "text": text}) + "\n")
        archive.writestr("metadata.jsonl", "".join(rows))


def captions(images: np.ndarray, labels: np.ndarray) -> list[str]:
    """One caption each, in one of several wordings; most mention the stroke and the slant."""
    strokes = _words(thickness(images), labels, "thin", "bold")
    leaning = _words(slant(images), labels, "upright", "slanted")
    rng = np.random.default_rng(0)
    texts = []
    for label, stroke, lean in zip(labels, strokes, leaning, strict=True):
        adjectives = [word for word in (stroke, lean) if word and rng.random() < 0.8]
        noun = NAMES[label] if rng.random() < 0.8 else str(label)
        texts.append(worded(noun, adjectives, int(rng.integers(4))))
    return texts


def worded(noun: str, adjectives: list[str], wording: int) -> str:
    """A caption in wording 0 to 3: "a thin seven", "seven, thin", "the digit seven, ..."."""
    plain = ", ".join([noun, *adjectives])
    phrase = " ".join([*adjectives, noun])
    article = "an" if phrase[0] in "aeiou8" else "a"
    return (f"{article} {phrase}", plain, f"the digit {plain}", f"a handwritten {phrase}")[wording]


def _words(values: np.ndarray, labels: np.ndarray, low: str, high: str) -> list[str]:
    """`low` for a digit's lowest values, `high` for its highest, otherwise empty."""
    words = np.full(len(values), "", dtype=object)
    for label in np.unique(labels):
        these = labels == label
        least, most = np.quantile(values[these], (TAIL, 1 - TAIL))
        words[these & (values <= least)] = low
        words[these & (values >= most)] = high
    return words.tolist()
