"""Text of numbers, and their scale: what HMMs with gaussian emissions read and write.

A document is a sequence of vectors separated by white space, with components joined by commas:
`0.5,-1 0.25,3` is two vectors of two components, `0.5 0.25 3` three of one.
"""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import BadInput, raise_outage

SCALE = "scale.json"
MAX_NUMBER = 1e9  # absolute value

Numbers = npt.NDArray[np.float64]


class Scale:
    """The components' means and standard deviations, by which vectors are standardised."""

    def __init__(self, mean: Numbers, deviation: Numbers) -> None:
        self.mean, self.deviation = mean, deviation

    @classmethod
    def of(cls, vectors: Numbers) -> "Scale":
        """Measure (N, D) vectors; the scale of a constant component is 1."""
        deviation = vectors.std(0)
        return cls(vectors.mean(0), np.where(deviation > 0, deviation, 1.0))

    def apply(self, vectors: Numbers) -> Numbers:
        """Standardise (T, D) vectors; raise `BadInput` if D does not match."""
        if vectors.shape[1] != len(self.mean):
            raise BadInput(
                f"vectors have {vectors.shape[1]} components, those of the model {len(self.mean)}"
            )
        return (vectors - self.mean) / self.deviation

    def undo(self, vectors: Numbers) -> Numbers:
        """The inverse of `apply`."""
        return vectors * self.deviation + self.mean

    @property
    def log_volume(self) -> float:
        """Log |det| of the scaling; subtract it from a log-density to undo the scaling."""
        return float(np.log(self.deviation).sum())

    def save(self, folder: Path) -> None:
        """Write `scale.json`."""
        data = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        (folder / SCALE).write_text(json.dumps(data) + "\n", "utf-8")


def load_scale(folder: Path) -> Scale:
    """Read a folder's `scale.json`; raise `BadInput` if it is missing or damaged."""
    try:
        data = json.loads((folder / SCALE).read_text("utf-8"))
        return Scale(np.array(data["mean"], float), np.array(data["deviation"], float))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise_outage(error)
        raise BadInput(f"{SCALE} of the model cannot be read: {error!r}") from None


def parse_numbers(text: str, *, where: str = "") -> Numbers:
    """The vectors (T, D) of a document; raises `BadInput` naming `where` and the first bad word."""
    words = text.split()
    vectors = [_vector(word, where) for word in words]
    for word, vector in zip(words, vectors, strict=True):
        if len(vector) != len(vectors[0]):
            raise BadInput(
                f"{where}{word[:80]!r} has {len(vector)} components, not {len(vectors[0])}"
            )
    return np.array(vectors).reshape(len(vectors), -1)


def write_numbers(vectors: Numbers) -> str:
    """Vectors (T, D) as one line, with six significant digits per number."""
    return " ".join(",".join(f"{x:.6g}" for x in vector) for vector in vectors.tolist())


def _vector(word: str, where: str) -> list[float]:
    try:
        vector = [float(part) for part in word.split(",")]
    except ValueError:
        vector = [math.nan]
    if not all(abs(x) <= MAX_NUMBER for x in vector):
        raise BadInput(
            f"{where}{word[:80]!r} is not a number between -1e9 and 1e9, or several joined by ,"
        )
    return vector
