"""How much better one evaluation is than another, and how sure that is.

The same resamples of the same items give both values (Efron and Tibshirani 1993, "An introduction
to the bootstrap", chapter 8): what both share cancels in the difference, and so does the bias of a
Frechet distance, which resampling raises on both sides by as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import NormalDist

import numpy as np

from db.errors import NonFinite, Refused
from worker.gate.items import Items
from worker.gate.primaries import Primary
from worker.gate.resampling import batches, draw_counts

BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Difference:
    """An improvement is positive where the candidate is better, whichever direction that is.

    `sd` is the standard deviation of the improvement between samples of items.
    """

    candidate: float
    champion: float
    improvement: float
    sd: float

    def bounds(self, confidence: float, *, training_sd: float = 0.0) -> tuple[float, float]:
        """Between what the improvement lies, counting the training noise of both versions."""
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * sqrt(self.sd**2 + 2 * training_sd**2)
        return self.improvement - reach, self.improvement + reach


def difference(
    primary: Primary, candidate: Items, champion: Items, *, resamples: int, seed: int
) -> Difference:
    """Compare two evaluations of one protocol. Raises `Refused` if they cannot be compared."""
    check_comparable(primary, candidate, champion)
    ours, theirs = primary.value(candidate), primary.value(champion)
    sign = -1 if primary.lower else 1
    sets = primary.sets(champion)
    widest = max(size for size, _ in sets)
    rows = max(1, BATCH_BYTES // (8 * widest))
    gains = []
    for batch in batches(resamples, rows):
        counts = draw_counts(sets, batch, seed=seed)
        gains.append(sign * (primary.values(candidate, counts) - primary.values(champion, counts)))
    return Difference(
        ours, theirs, sign * (ours - theirs), float(np.concatenate(gains).std(ddof=1))
    )


def check_comparable(primary: Primary, candidate: Items, champion: Items) -> None:
    """Raise `Refused` unless both have the arrays and are of one protocol and size."""
    if candidate.protocol != champion.protocol:
        raise Refused(
            "the two evaluations were measured by different protocols",
            remedy="evaluate both on the same dataset version with equal settings",
        )
    for name in primary.arrays:
        for items in (candidate, champion):
            if name not in items.arrays:
                raise Refused(f"an evaluation has no array {name!r}", remedy="evaluate again")
        ours, theirs = candidate.arrays[name].shape, champion.arrays[name].shape
        if ours != theirs:
            raise Refused(
                f"{name} have shapes {ours} and {theirs}: unequal sizes are never compared",
                remedy="evaluate both with the same number of items",
            )
        if not all(np.isfinite(items.arrays[name]).all() for items in (candidate, champion)):
            raise NonFinite(f"{name} contain NaN or infinity", remedy="look at the samples")


def training_noise(
    primary: Primary, versions: Sequence[Items], *, resamples: int, seed: int
) -> float:
    """The standard deviation of a metric between versions that differ in their training seed alone.

    Of the variance between them, the part is subtracted that the choice of items explains. Raises
    `Refused` for fewer than three.
    """
    if len(versions) < 3:
        raise Refused(
            f"{len(versions)} versions do not show the noise between training seeds",
            remedy="train three or more that differ in their seed alone",
        )
    pairs = [
        difference(primary, one, other, resamples=resamples, seed=seed)
        for one, other in combinations(versions, 2)
    ]
    between = np.var([primary.value(each) for each in versions], ddof=1)
    within = np.mean([pair.sd**2 for pair in pairs]) / 2
    return sqrt(max(0.0, float(between - within)))
