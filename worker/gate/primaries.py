"""The metrics that follow from resampled items, so that the gate can decide by them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.gate.items import Array, Items
from worker.gate.resampling import Counts, Strata
from worker.metrics.frechet import Moments, distance_of_moments

Values = npt.NDArray[np.float64]  # one for each resample

CHUNK_BYTES = 64 * 2**20  # of a temporary array


@dataclass(frozen=True)
class Primary(ABC):
    """A metric of items drawn with replacement, given as counts.

    `lower` says whether a lower value is better.
    """

    lower: bool

    @property
    @abstractmethod
    def arrays(self) -> tuple[str, ...]:
        """The arrays that it needs."""

    @abstractmethod
    def sets(self, items: Items) -> list[tuple[int, Strata]]:
        """The sets of items that are resampled, by their size and strata."""

    @abstractmethod
    def values(self, items: Items, counts: Sequence[Counts]) -> Values:
        """The value of each resample, from its counts for each of the sets."""

    def value(self, items: Items) -> float:
        """The value of the items themselves."""
        return float(self.values(items, [np.ones((1, size)) for size, _ in self.sets(items)])[0])


@dataclass(frozen=True)
class Frechet(Primary):
    """The Frechet distance between made and real features.

    Within a resample the made items are drawn in their asked-for classes, the real ones freely.
    """

    @property
    def arrays(self) -> tuple[str, ...]:
        """See `Primary.arrays`."""
        return ("made_features", "real_features")

    def sets(self, items: Items) -> list[tuple[int, Strata]]:
        """See `Primary.sets`."""
        made, real = (items.arrays[name] for name in self.arrays)
        return [(len(made), items.arrays.get("made_labels")), (len(real), None)]

    def values(self, items: Items, counts: Sequence[Counts]) -> Values:
        """See `Primary.values`."""
        made, real = (
            _moments(items.arrays[name], each)
            for name, each in zip(self.arrays, counts, strict=True)
        )
        pairs = zip(real, made, strict=True)
        return np.array([distance_of_moments(ours, theirs) for ours, theirs in pairs])


@dataclass(frozen=True)
class Ratio(Primary):
    """`over` summed divided by `under` summed, times `scale`; then `exp` of it if `exponential`."""

    over: str
    under: str
    scale: float = 1.0
    exponential: bool = False

    @property
    def arrays(self) -> tuple[str, ...]:
        """See `Primary.arrays`."""
        return (self.over, self.under)

    def sets(self, items: Items) -> list[tuple[int, Strata]]:
        """See `Primary.sets`."""
        return [(len(items.arrays[self.over]), None)]

    def values(self, items: Items, counts: Sequence[Counts]) -> Values:
        """See `Primary.values`."""
        [drawn] = counts
        over, under = (drawn @ items.arrays[name].astype(np.float64) for name in self.arrays)
        values: Values = over / under * self.scale
        return np.exp(values) if self.exponential else values


@dataclass(frozen=True)
class Agreement(Primary):
    """The share of made items whose likeliest class is the one that was asked for."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """See `Primary.arrays`."""
        return ("made_labels", "made_probabilities")

    def sets(self, items: Items) -> list[tuple[int, Strata]]:
        """See `Primary.sets`."""
        labels = items.arrays["made_labels"]
        return [(len(labels), labels)]

    def values(self, items: Items, counts: Sequence[Counts]) -> Values:
        """See `Primary.values`."""
        [drawn] = counts
        labels = items.arrays["made_labels"]
        asked = (labels >= 0).astype(np.float64)
        right = asked * (items.arrays["made_probabilities"].argmax(axis=1) == labels)
        values: Values = (drawn @ right) / (drawn @ asked)
        return values


PRIMARIES: dict[str, Primary] = {
    "fid": Frechet(lower=True),
    "loss": Ratio(lower=True, over="nll", under="tokens"),
    "perplexity": Ratio(lower=True, over="nll", under="tokens", exponential=True),
    "bits_per_character": Ratio(lower=True, over="nll", under="characters", scale=1 / np.log(2)),
    "bits_per_sample": Ratio(lower=True, over="nll", under="tokens", scale=1 / np.log(2)),
    "label_agreement": Agreement(lower=False),
    "class_agreement": Agreement(lower=False),
}


def find_primary(name: str) -> Primary:
    """The metric of this name. Raises `Refused` with those that can be resampled."""
    if name not in PRIMARIES:
        raise Refused.unknown("primary metric", name, PRIMARIES, of="the gate")
    return PRIMARIES[name]


def _moments(features: Array, counts: Counts) -> list[Moments]:
    """The moments of each resample: products of features are formed once for all of them."""
    total, width = len(features), features.shape[1]
    centre = features.mean(axis=0, dtype=np.float64)
    rows, columns = np.triu_indices(width)
    sums = np.zeros((len(counts), width))
    products = np.zeros((len(counts), len(rows)))
    step = max(1, CHUNK_BYTES // (8 * len(rows)))
    for start in range(0, total, step):
        part = features[start : start + step] - centre
        drawn = counts[:, start : start + step]
        sums += drawn @ part
        products += drawn @ (part[:, rows] * part[:, columns])
    unbiased = total / (total - 1)
    return [
        Moments(mean + centre, unbiased * (_symmetric(product, width) - np.outer(mean, mean)))
        for mean, product in zip(sums / total, products / total, strict=True)
    ]


def _symmetric(upper: Values, width: int) -> Array:
    """The symmetric (width, width) matrix with this upper triangle."""
    matrix = np.empty((width, width))
    matrix[np.triu_indices(width)] = upper
    matrix.T[np.triu_indices(width)] = upper
    return matrix
