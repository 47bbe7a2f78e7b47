"""Whether made items are copies of training items.

A Frechet distance rewards copying; these compare how near made items come to training items with
how near held-out items do, which no model has seen.
"""

import numpy as np

from db.errors import Refused
from worker.metrics.samples import Flags, Values

PERCENTILE = 1.0


def closer_than_held_out(
    made_nearest: Values, held_out_nearest: Values, *, percentile: float = PERCENTILE
) -> Flags:
    """Which made items are as near to training as the nearest `percentile` % of held-out items.

    Takes the distances (N,) and (M,) of `distances.nearest`. The mean is the share of likely
    copies: about `percentile` / 100 without memorisation, 1 where all are copies; lower is better.
    Ties count: where held-out items equal training ones, so may made ones.
    """
    _check(made_nearest, held_out_nearest)
    near: Flags = made_nearest <= np.percentile(held_out_nearest, percentile)
    return near


def copying_probability(made_nearest: Values, held_out_nearest: Values) -> float:
    """Probability that a made item is nearer to training than a held-out one; ties count half.

    0.5 without memorisation; above it: copying; below it: made items lie off the data. This is the
    statistic of Meehan et al. 2020, "A non-parametric test to detect data-copying in generative
    models", arXiv:2004.05675, section 3, over the whole space.
    """
    _check(made_nearest, held_out_nearest)
    ordered = np.sort(made_nearest)
    below = np.searchsorted(ordered, held_out_nearest, side="left")
    upto = np.searchsorted(ordered, held_out_nearest, side="right")
    return float((below + upto).mean() / (2 * len(ordered)))


def _check(made_nearest: Values, held_out_nearest: Values) -> None:
    if not len(made_nearest) or not len(held_out_nearest):
        raise Refused(
            f"{len(made_nearest)} made and {len(held_out_nearest)} held-out items",
            remedy="memorisation needs both",
        )
