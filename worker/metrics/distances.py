"""Euclidean distances between items, in blocks: memory does not grow with N x M."""

from collections.abc import Iterator

import numpy as np

from worker.metrics.samples import Features, Indices, Values, blocks, check_features, check_pair


def squared_distances(left: Features, right: Features) -> Iterator[tuple[slice, Features]]:
    """Rows of the (N, M) matrix of squared distances, as (rows, block) in order, in float64."""
    right = right.astype(np.float64)
    right_squares = np.square(right).sum(axis=1)
    for rows in blocks(len(left), 8 * len(right)):
        some = left[rows].astype(np.float64)
        block = some @ right.T
        block *= -2
        block += np.square(some).sum(axis=1)[:, None]
        block += right_squares
        yield rows, np.maximum(block, 0, out=block)


def nearest(items: Features, others: Features) -> tuple[Values, Indices]:
    """Distance of each of `items` (N, D) to the nearest of `others` (M, D), and its row there.

    The distance is computed from the differences, so that of an exact copy is exactly 0.
    """
    check_pair(items, others, at_least=1)
    found = np.empty(len(items), np.int64)
    for rows, block in squared_distances(items, others):
        found[rows] = block.argmin(axis=1)
    lengths = np.empty(len(items))
    for rows in blocks(len(items), 8 * items.shape[1]):
        lengths[rows] = np.linalg.norm(
            items[rows].astype(np.float64) - others[found[rows]].astype(np.float64), axis=1
        )
    return lengths, found


def squared_radii(features: Features, ks: tuple[int, ...]) -> tuple[Values, ...]:
    """Squared distance of each item to its k-th nearest other item, (N,) for each k."""
    check_features(features, at_least=max(ks) + 1)
    radii = np.empty((len(ks), len(features)))
    for rows, block in squared_distances(features, features):
        block.partition(sorted(ks), axis=1)  # the item itself comes first, at distance 0
        radii[:, rows] = block[:, list(ks)].T
    return tuple(radii)


def mean_distances(features: Features) -> Values:
    """Mean distance of each item to every other one, (N,)."""
    check_features(features)
    sums = np.empty(len(features))
    for rows, block in squared_distances(features, features):
        block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = 0  # to itself
        sums[rows] = np.sqrt(block, out=block).sum(axis=1)
    return sums / (len(features) - 1)
