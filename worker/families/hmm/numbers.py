"""Numbers as text, and their scale: what gaussian emissions read and write.

A document is vectors with white space between them, the components of one joined by commas:
`0.5,-1 0.25,3` is two vectors of two components, `0.5 0.25 3` three of one.
"""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import BadInput

SCALE = "scale.json"
MOST = 1e9  # a number's greatest size

Numbers = npt.NDArray[np.float64]


class Scale:
    """Means and standard deviations of the components, by which a model's numbers are scaled."""

    def __init__(self, mean: Numbers, deviation: Numbers) -> None:
        self.mean, self.deviation = mean, deviation

    @classmethod
    def of(cls, vectors: Numbers) -> "Scale":
        """Measure (N, D) vectors; a component that never changes is left at its size."""
        deviation = vectors.std(0)
        return cls(vectors.mean(0), np.where(deviation > 0, deviation, 1.0))

    def apply(self, vectors: Numbers) -> Numbers:
        """(T, D) as the model reads them; `BadInput` where D is another."""
        if vectors.shape[1] != len(self.mean):
            raise BadInput(
                f"vectors of {vectors.shape[1]} components, where the model has {len(self.mean)}"
            )
        return (vectors - self.mean) / self.deviation

    def undo(self, vectors: Numbers) -> Numbers:
        """The inverse of `apply`."""
        return vectors * self.deviation + self.mean

    @property
    def log_volume(self) -> float:
        """What a log-density of scaled vectors is greater by than one in their own units."""
        return float(np.log(self.deviation).sum())

    def save(self, folder: Path) -> None:
        """Write `scale.json`."""
        data = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        (folder / SCALE).write_text(json.dumps(data) + "\n", "utf-8")


def load_scale(folder: Path) -> Scale:
    """Read a folder's `scale.json`; `BadInput` where it is missing or damaged."""
    try:
        data = json.loads((folder / SCALE).read_text("utf-8"))
        return Scale(np.array(data["mean"], float), np.array(data["deviation"], float))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{SCALE} of the model cannot be read: {error!r}") from None


def parse_numbers(text: str) -> Numbers:
    """The vectors (T, D) of a document, `BadInput` naming the first word that is none.

    Words have white space between, a vector's components commas.
    """
    words = text.split()
    vectors = [_vector(word) for word in words]
    for word, vector in zip(words, vectors, strict=True):
        if len(vector) != len(vectors[0]):
            raise BadInput(f"{word[:80]!r} has {len(vector)} components, not {len(vectors[0])}")
    return np.array(vectors).reshape(len(vectors), -1)


def write_numbers(vectors: Numbers) -> str:
    """Vectors (T, D) as one line, six digits a number."""
    return " ".join(",".join(f"{x:.6g}" for x in vector) for vector in vectors.tolist())


def _vector(word: str) -> list[float]:
    try:
        vector = [float(part) for part in word.split(",")]
    except ValueError:
        vector = [math.nan]
    if not all(abs(x) <= MOST for x in vector):
        raise BadInput(
            f"{word[:80]!r} is no number between -1e9 and 1e9, or several joined by commas, "
            "of which documents for gaussian emissions consist"
        )
    return vector
