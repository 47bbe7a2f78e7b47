"""Metrics of features of made and real items, of resampled items.

Each function takes arrays of items and returns a `Statistic`. What costs most is computed for many
resamples at once, and in blocks: memory does not grow with N x M.
"""

import numpy as np

from worker.gate.resampling import Counts
from worker.gate.sums import Array, Draw, Statistic, mean
from worker.metrics import sounds, transport
from worker.metrics.distances import mean_distances, squared_distances, squared_radii
from worker.metrics.diversity import intra_class_shares
from worker.metrics.frechet import Moments, distance_of_moments
from worker.metrics.kernel import cubic_kernel
from worker.metrics.neighbourhoods import DENSITY_K, MANIFOLD_K
from worker.metrics.samples import BLOCK_BYTES, Values, blocks

PROJECTIONS = 50  # the spread of the mean over more is hardly smaller
SEED = 0  # of the directions, as in evaluations


def frechet(made: Array, real: Array) -> Statistic:
    """`worker.metrics.frechet.frechet_distance`."""

    def statistic(draw: Draw) -> Values:
        # all products of two features are kept for each resample
        step = max(1, BLOCK_BYTES // (4 * made.shape[1] ** 2))
        found = []
        for first in range(0, len(draw[0]), step):
            ours, theirs = (
                _moments(features, counts[first : first + step])
                for features, counts in zip((made, real), draw, strict=True)
            )
            found += [distance_of_moments(*each) for each in zip(theirs, ours, strict=True)]
        return np.array(found)

    return statistic


def kernel(made: Array, real: Array) -> Statistic:
    """`worker.metrics.kernel.squared_mmd`.

    An item that comes twice is no pair of different items, so it is not counted as one.
    """
    ours, theirs = (features.astype(np.float64) for features in (made, real))

    def statistic(draw: Draw) -> Values:
        one, other = draw
        within = _mean_within(ours, one) + _mean_within(theirs, other)
        found: Values = within - 2 * _mean_between(ours, one, theirs, other)
        return found

    return statistic


def monge(made: Array, real: Array) -> Statistic:
    """`worker.metrics.transport.monge_distance` by fewer directions."""
    statistic = _along(made, real, power=2)
    return lambda draw: 3 * made.shape[1] * statistic(draw)


def sliced(made: Array, real: Array) -> Statistic:
    """`worker.metrics.transport.sliced_distance` by fewer directions."""
    statistic = _along(made, real, power=1)
    return lambda draw: statistic(draw) / transport.mean_projection(made.shape[1])


def spectral(made: Array, real: Array) -> Statistic:
    """`worker.metrics.sounds.spectral_distance`: each resolution weighs the same."""
    sizes = [frame // 2 + 1 for frame in sounds.FRAMES]
    weights = np.concatenate([np.full(size, 1 / (size * len(sizes))) for size in sizes])
    sides = (features.T.astype(np.float64) for features in (made, real))
    return _sorted_gaps(*sides, power=1, weights=weights)


def precision(made: Array, real: Array) -> Statistic:
    """`worker.metrics.neighbourhoods`: made items within the ball of a real one."""
    return _reached(real, made, k=MANIFOLD_K, places=(1, 0))


def recall(made: Array, real: Array) -> Statistic:
    """`worker.metrics.neighbourhoods`: real items within the ball of a made one."""
    return _reached(made, real, k=MANIFOLD_K, places=(0, 1))


def density(made: Array, real: Array) -> Statistic:
    """`worker.metrics.neighbourhoods`: how many balls of real items hold a made one."""
    return _reached(real, made, k=DENSITY_K, places=(1, 0), count=True)


def coverage(made: Array, real: Array) -> Statistic:
    """`worker.metrics.neighbourhoods`: real items whose ball holds a made one."""
    (radii,) = squared_radii(real, (DENSITY_K,))

    def statistic(draw: Draw) -> Values:
        ours, theirs = draw
        found = np.zeros(len(ours))
        for rows, block in squared_distances(real, made):
            held = (block <= radii[rows, None]).astype(np.float32)
            found += (theirs[:, rows] * (ours.astype(np.float32) @ held.T > 0)).sum(axis=1)
        values: Values = found / theirs.sum(axis=1)
        return values

    return statistic


def pair_distance(features: Array) -> Statistic:
    """`worker.metrics.diversity.perceptual_diversity`."""
    return _of_pairs(mean_distances(features))


def intra_class_distance(features: Array, probabilities: Array) -> Statistic:
    """`worker.metrics.diversity.intra_class_distance`, by the likeliest classes."""
    return _of_pairs(intra_class_shares(features, probabilities.argmax(axis=1)))


def feature_entropy(features: Array) -> Statistic:
    """`worker.metrics.diversity.feature_entropy`."""

    def statistic(draw: Draw) -> Values:
        [drawn] = draw
        step = max(1, BLOCK_BYTES // (4 * features.shape[1] ** 2))
        parts = (drawn[first : first + step] for first in range(0, len(drawn), step))
        return np.array([_entropy(each) for some in parts for each in _moments(features, some)])

    return statistic


def _of_pairs(means: Values) -> Statistic:
    """A mean over pairs from each item's mean over its pairs, NaN without any.

    An item counts in each of its pairs twice: see `worker.metrics.bootstrap.interval_of_pairs`.
    """
    paired = ~np.isnan(means)
    if not paired.any():
        return lambda draw: np.full(len(draw[0]), np.nan)
    value, single = means[paired].mean(), mean(means[paired])
    return lambda draw: 2 * single([draw[0][:, paired]]) - value


def _entropy(moments: Moments) -> float:
    variances = np.clip(np.linalg.eigvalsh(moments.covariance), 0, None)
    shares = variances[variances > 0] / (variances.sum() or 1)
    return float(-(shares * np.log(shares)).sum())


def _moments(features: Array, counts: Counts) -> list[Moments]:
    """The moments of each resample: products of features are formed once for all of them."""
    total, width = len(features), features.shape[1]
    centre = features.mean(axis=0, dtype=np.float64)
    rows, columns = np.triu_indices(width)
    sums = np.zeros((len(counts), width))
    products = np.zeros((len(counts), len(rows)))
    for some in blocks(total, 8 * len(rows)):
        part = features[some] - centre
        drawn = counts[:, some]
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


def _mean_within(items: Array, counts: Counts) -> Values:
    """Mean of the kernel over pairs of different items of each resample."""
    total, found = len(items), np.zeros(len(counts))
    for rows in blocks(total, 8 * total):
        block = cubic_kernel(items[rows], items)
        block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = 0
        found += ((counts @ block.T) * counts[:, rows]).sum(axis=1)
    # drawn with replacement, two different items come together (1 - 1 / N) times on average
    return found / (total - 1) ** 2


def _mean_between(ours: Array, one: Counts, theirs: Array, other: Counts) -> Values:
    """Mean of the kernel over pairs of an item of each side, of each resample."""
    found = np.zeros(len(one))
    for rows in blocks(len(ours), 8 * len(theirs)):
        block = cubic_kernel(ours[rows], theirs)
        found += ((other @ block.T) * one[:, rows]).sum(axis=1)
    return found / (len(ours) * len(theirs))


def _along(made: Array, real: Array, *, power: int) -> Statistic:
    """Mean over directions and items of |sorted real - sorted made|^power."""
    directions = transport.random_directions(PROJECTIONS, made.shape[1], SEED)
    weights = np.full(PROJECTIONS, 1 / PROJECTIONS)
    return _sorted_gaps(directions @ made.T, directions @ real.T, power=power, weights=weights)


def _sorted_gaps(made: Array, real: Array, *, power: int, weights: Values) -> Statistic:
    """Means of |sorted real - sorted made|^power in each row of (K, N), times `weights`, summed.

    Columns are drawn.
    """
    sides = [(np.sort(each, axis=1), np.argsort(each, axis=1)) for each in (made, real)]

    def drawn(side: int, counts: Values) -> Array:
        """The row's values in order, each as often as it was drawn, (K x N,)."""
        values, order = sides[side]
        return np.repeat(values.ravel(), counts.astype(np.int64)[order].ravel())

    def statistic(draw: Draw) -> Values:
        pairs = zip(*draw, strict=True)
        gaps = (np.abs(drawn(1, theirs) - drawn(0, ours)) for ours, theirs in pairs)
        return np.array(
            [(each**power).reshape(len(weights), -1).mean(1) @ weights for each in gaps]
        )

    return statistic


def _reached(
    centres: Array, points: Array, *, k: int, places: tuple[int, int], count: bool = False
) -> Statistic:
    """The share of points within the ball of a centre; or in how many balls a point is, by `k`.

    A ball reaches to the k-th nearest other centre of all. `places` are those of the centres' and
    the points' counts in a draw.
    """
    (radii,) = squared_radii(centres, (k,))

    def statistic(draw: Draw) -> Values:
        of_centres, of_points = (draw[place] for place in places)
        hits = np.zeros((len(of_points), len(points)), np.float32)
        for rows, block in squared_distances(centres, points):
            held = (block <= radii[rows, None]).astype(np.float32)
            hits += of_centres[:, rows].astype(np.float32) @ held
        weights = hits / k if count else hits > 0
        found: Values = (weights * of_points).sum(axis=1) / of_points.sum(axis=1)
        return found

    return statistic
