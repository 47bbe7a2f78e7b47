"""How much better one evaluation is than another, and how sure that is.

The same resamples of the same items give both values (Efron and Tibshirani 1993, "An introduction
to the bootstrap", chapter 8): what both share cancels in the difference, and so does the bias of a
distance, which resampling raises on both sides by as much.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, sqrt

import numpy as np
from scipy.special import stdtrit

from db.errors import NonFinite, Refused
from worker.gate.items import Items
from worker.gate.primaries import Primary, find_primary
from worker.gate.resampling import Counts, batches, draw_counts
from worker.metrics.catalogue import HIGHER, METRICS, badness
from worker.metrics.samples import Values

BATCH_BYTES = 64 * 2**20
FEWEST_ITEMS = 5  # of which a difference can be certain


@dataclass(frozen=True)
class Difference:
    """An improvement is positive where the candidate is better, whichever direction that is.

    `sd` is the standard deviation of the improvement between samples of items, of which the
    smallest set has `items`.
    """

    candidate: float
    champion: float
    improvement: float
    sd: float
    items: int

    def bounds(self, confidence: float, *, training_sd: float = 0.0) -> tuple[float, float]:
        """Between what the improvement lies, counting the training noise of both versions.

        By Student's distribution, as `sd` is an estimate, too.
        """
        times = float(stdtrit(self.items - 1, (1 + confidence) / 2))
        reach = times * sqrt(self.sd**2 + 2 * training_sd**2)
        return self.improvement - reach, self.improvement + reach


def difference(
    metric: str, candidate: Items, champion: Items, *, resamples: int, seed: int
) -> Difference:
    """Compare two evaluations of one protocol. Raises `Refused` if they cannot be compared."""
    primary = find_primary(metric)
    ours, theirs = _badness(metric, candidate), _badness(metric, champion)
    check_comparable(metric, candidate, champion)
    draws = _draws(primary, candidate, champion, resamples=resamples, seed=seed)
    both = primary.statistic(candidate), primary.statistic(champion)
    sign = 1 if METRICS[metric].better == HIGHER else -1
    gains = np.concatenate([sign * (both[0](drawn) - both[1](other)) for drawn, other in draws])
    items = min(size for each in (candidate, champion) for size, _ in primary.drawn(each))
    return Difference(
        float(candidate.numbers[metric]["value"]),
        float(champion.numbers[metric]["value"]),
        theirs - ours,
        _deviation(metric, gains, items),
        items,
    )


def check_comparable(metric: str, candidate: Items, champion: Items) -> None:
    """Raise `Refused` unless both have the arrays and are of one protocol and size."""
    if candidate.protocol != champion.protocol:
        raise Refused(
            "the two evaluations were measured by different protocols",
            remedy="evaluate both on the same dataset version with equal settings",
        )
    primary = find_primary(metric)
    for items in (candidate, champion):
        primary.check(items)
    for name in primary.same:
        if not np.array_equal(candidate.arrays[name], champion.arrays[name]):
            raise Refused(
                f"the two versions have different tokenizers, so {metric} of one says nothing "
                "about the other",
                remedy="decide by bits_per_character",
            )
    for name in () if primary.paired else primary.sets:
        one, other = (len(items.arrays[name]) for items in (candidate, champion))
        if one != other:
            raise Refused(
                f"{name} have {one:,} and {other:,} items: unequal sizes are never compared",
                remedy="evaluate both with the same number of items",
            )
    fewest = min(size for each in (candidate, champion) for size, _ in primary.drawn(each))
    if fewest < FEWEST_ITEMS:
        raise Refused(
            f"{metric} of {fewest} items is never certain: it takes {FEWEST_ITEMS} or more",
            remedy="evaluate both with more items",
        )


def training_noise(metric: str, versions: Sequence[Items], *, resamples: int, seed: int) -> float:
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
        difference(metric, one, other, resamples=resamples, seed=seed)
        for one, other in combinations(versions, 2)
    ]
    between = np.var([_badness(metric, each) for each in versions], ddof=1)
    within = np.mean([pair.sd**2 for pair in pairs]) / 2
    return sqrt(max(0.0, float(between - within)))


def _badness(metric: str, items: Items) -> float:
    """How bad the recorded number is. Raises `Refused` without one, or one to be near to."""
    number = items.numbers.get(metric)
    if number is None:
        fewest = METRICS[metric].fewest
        takes = f": it takes {fewest:,} items" if fewest > 1 else ""
        raise Refused(
            f"{metric} was not measured{takes}",
            remedy="decide by a number of the evaluation, or evaluate both with --count",
        )
    found = badness(metric, float(number["value"]), number.get("real"))
    if not np.isfinite(found):
        raise Refused(
            f"{metric} has no value of real data here to be near to",
            remedy="decide by another number",
        )
    return found


def _draws(
    primary: Primary, candidate: Items, champion: Items, *, resamples: int, seed: int
) -> Iterator[tuple[list[Counts], list[Counts]]]:
    """The counts of each side in batches: the same ones, unless their items are not the same."""
    ours, theirs = primary.drawn(candidate), primary.drawn(champion)
    together = all(
        np.array_equal(candidate.arrays[name], champion.arrays[name]) for name in primary.paired
    )
    widest = max(size for size, _ in [*ours, *theirs])
    for batch in batches(resamples, max(1, BATCH_BYTES // (8 * widest))):
        drawn = draw_counts(ours, batch, seed=seed)
        later = range(batch.start + resamples, batch.stop + resamples)
        yield drawn, drawn if together else draw_counts(theirs, later, seed=seed)


def _deviation(metric: str, gains: Values, items: int) -> float:
    """The standard deviation of gains; raises `NonFinite` where some are no numbers."""
    if undefined := int((~np.isfinite(gains)).sum()):
        raise NonFinite(
            f"{metric} is undefined in {undefined:,} of {len(gains):,} resamples",
            remedy="evaluate both with more items",
        )
    deviation = float(gains.std(ddof=1))
    # a sample drawn from N items varies less than N new items do
    return deviation * sqrt(items / (items - 1)) if items > 1 else inf
