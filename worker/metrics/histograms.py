"""Histograms and the distances between them."""

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.metrics.samples import Values

SMOOTHING = 1.0  # added to each count

Counts = npt.NDArray[np.integer]  # (bins,)


def divergence(real: Counts, made: Counts, *, smoothing: float = SMOOTHING) -> float:
    """KL(real || made) in nats, of two histograms; lower is better, 0 at equal shares.

    `smoothing` is added to each bin's count on both sides, so a bin that is missing from the made
    items costs much, but not infinitely much. Equal shares of unequal totals differ a little.
    """
    real_shares, made_shares = shares(real, smoothing=smoothing), shares(made, smoothing=smoothing)
    return max(0.0, float((real_shares * np.log(real_shares / made_shares)).sum()))


def overlap(real: Counts, made: Counts) -> float:
    """Area that two histograms share, from 0 to 1; higher is better, 1 at equal shares.

    1 minus the total variation distance.
    """
    return float(np.minimum(shares(real), shares(made)).sum())


def shares(counts: Counts, *, smoothing: float = 0.0) -> Values:
    """Share of each bin, (bins,), after adding `smoothing` to each count."""
    smoothed = counts + smoothing
    if not smoothed.sum():
        raise Refused("a histogram counts nothing", remedy="use items that hold something to count")
    found: Values = smoothed / smoothed.sum()
    return found
