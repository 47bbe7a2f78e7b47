"""The demo's data: real, small, and part of packages that are installed wherever it can run."""

import re
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from PIL import Image

from worker.extras import needed_for
from worker.files import disk_errors

DARKEST = 16  # scikit-learn counts ink from 0 to 16


def write_data(folder: Path) -> list[Path]:
    """Write all of it into `folder`; return what was written."""
    with disk_errors(folder):
        return [
            write_digits(folder / "digits"),
            write_documentation(folder / "documentation.txt"),
        ]


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's handwritten digits as PNG files of 8x8, one sub-folder per class.

    1,797 digits by 43 people (Alpaydin, Kaynak 1998, UCI "Optical Recognition of Handwritten
    Digits"). Raises `MissingPackage` if scikit-learn is not installed.
    """
    with needed_for("the demo"):
        from sklearn.datasets import load_digits  # noqa: PLC0415 - the scheduler's image has none
    digits = load_digits()
    pixels = np.round(digits.images * (255 / DARKEST)).astype(np.uint8)  # (N, 8, 8)
    for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        place = folder / str(label) / f"{number:04}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    return folder


def write_documentation(path: Path) -> Path:
    """Write the prose of Python's `help("topics")` as one text file, one paragraph per line.

    Tables and listings are left out: a small model learns little from them in a minute.
    """
    text = "\n\n".join(topics[name] for name in sorted(topics))
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    prose = [each for each in paragraphs if each[:1].isupper() and each.endswith((".", ":"))]
    path.write_text("\n".join(dict.fromkeys(prose)), "utf-8")  # each paragraph once
    return path
