"""Metrics that are sums over items, or follow from sums: a resample adds its items up.

Each function takes arrays of items and returns a `Statistic`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.gate.resampling import Counts
from worker.metrics import ngrams
from worker.metrics.histograms import divergence, overlap
from worker.metrics.samples import Values

Array = npt.NDArray[Any]
Draw = Sequence[Counts]  # of each set of items: how often every item comes in each resample
Statistic = Callable[[Draw], Values]  # the value of each resample


def ratio(over: Array, under: Array, *, scale: float = 1.0, exponential: bool = False) -> Statistic:
    """`over` summed divided by `under` summed, times `scale`; then `exp` of it if `exponential`."""

    def statistic(draw: Draw) -> Values:
        [drawn] = draw
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            values: Values = drawn @ over.astype(np.float64) / (drawn @ under.astype(np.float64))
            return np.exp(scale * values) if exponential else scale * values

    return statistic


def mean(values: Array) -> Statistic:
    """The mean of one number of each item."""
    return ratio(values, np.ones(len(values)))


def agreement(labels: Array, probabilities: Array) -> Statistic:
    """The share of items with a label (>= 0) whose likeliest class it is."""
    asked = labels >= 0
    return ratio(asked & (probabilities.argmax(axis=1) == labels), asked)


def inception_score(probabilities: Array) -> Statistic:
    """`worker.metrics.classes.inception_score`."""
    exact = probabilities.astype(np.float64)
    entropies = -_logged(exact).sum(axis=1)

    def statistic(draw: Draw) -> Values:
        [drawn] = draw
        shares = drawn / drawn.sum(axis=1, keepdims=True)
        values: Values = np.exp(-_logged(shares @ exact).sum(axis=1) - shares @ entropies)
        return values

    return statistic


def class_divergence(made: Array, real: Array) -> Statistic:
    """`worker.metrics.classes.class_divergence` of the likeliest classes of probabilities."""
    rows = [np.eye(made.shape[1], dtype=np.int64)[each.argmax(axis=1)] for each in (made, real)]
    return _compared(rows[0], rows[1], divergence)


def histogram_overlap(made: Array, real: Array) -> Statistic:
    """`worker.metrics.histograms.overlap` of summed rows (N, bins); NaN where a side is empty."""
    return _compared(made, real, overlap)


def bleu(rows: Array) -> Statistic:
    """`worker.metrics.ngrams.bleu` of the rows of `bleu_counts`."""
    return partial(_of_sums, rows=rows, score=ngrams.bleu)


def chrf(rows: Array) -> Statistic:
    """`worker.metrics.ngrams.chrf` of the rows of `chrf_counts`."""
    return partial(_of_sums, rows=rows, score=ngrams.chrf)


def distinct(ids: Array, lengths: Array, *, n: int) -> Statistic:
    """`worker.metrics.text_diversity.distinct` of texts whose words `ids` hold one after another.

    `lengths` (N,) are those of the texts.
    """
    owners = np.repeat(np.arange(len(lengths)), np.maximum(lengths - n + 1, 0))
    begins = np.cumsum(lengths) - lengths
    within = np.arange(len(owners)) - np.searchsorted(owners, owners)
    places, words = begins[owners] + within, int(ids.max(initial=0)) + 1
    names = ids[places].astype(np.int64)
    for step in range(1, n):
        names = np.unique(names * words + ids[places + step], return_inverse=True)[1]

    def statistic(draw: Draw) -> Values:
        [drawn] = draw
        found = np.zeros(len(drawn))
        for row, counts in enumerate(drawn):
            times = counts[owners]
            different = np.count_nonzero(np.bincount(names, weights=times))
            found[row] = different / max(times.sum(), 1)
        return found

    return statistic


def apart(prepare: Callable[..., Statistic], arrays: int = 1) -> Callable[..., Statistic]:
    """How far the made items' value is from that of the real ones: lower is better.

    `prepare` takes this number of `arrays` of one side; the result takes those of both.
    """

    def both(*given: Array) -> Statistic:
        made, real = prepare(*given[:arrays]), prepare(*given[arrays:])
        return lambda draw: np.abs(made(draw[:1]) - real(draw[1:]))

    return both


def _compared(made: Array, real: Array, compare: Callable[[Array, Array], float]) -> Statistic:
    """A comparison of two histograms, real first, that are the sums of rows."""

    def statistic(draw: Draw) -> Values:
        sums = (drawn @ rows for drawn, rows in zip(draw, (made, real), strict=True))
        pairs = zip(*sums, strict=True)
        return np.array(
            [compare(real, made) if real.any() and made.any() else np.nan for made, real in pairs]
        )

    return statistic


def _of_sums(draw: Draw, *, rows: Array, score: Callable[[Array], float]) -> Values:
    [drawn] = draw
    return np.array([score(each[None]) for each in np.rint(drawn @ rows).astype(np.int64)])


def _logged(probabilities: Array) -> Array:
    """Each times its logarithm; 0 at 0."""
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    found: Array = probabilities * logs
    return found
