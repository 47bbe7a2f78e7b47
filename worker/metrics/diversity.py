"""How different made items are from one another, by their features."""

import numpy as np

from worker.metrics.distances import mean_distances
from worker.metrics.frechet import moments
from worker.metrics.samples import Features, Labels, Values


def perceptual_diversity(features: Features) -> float:
    """Mean Euclidean distance over all pairs of items (N, D); higher is more diverse.

    What some call a perceptual similarity score (PSS): LPIPS's idea (Zhang et al. 2018,
    arXiv:1801.03924) with the judge's last features in place of its layers. Compare it with the
    value of real items: noise is diverse too.
    """
    return float(mean_distances(features).mean())


def intra_class_distance(features: Features, labels: Labels) -> float:
    """`perceptual_diversity` within each class, averaged over the classes with two items or more.

    Falls as a class collapses to few samples; compare it with the value of real items. NaN where
    no class has two items.
    """
    shares = intra_class_shares(features, labels)
    paired = shares[~np.isnan(shares)]
    return float(paired.mean()) if len(paired) else float("nan")


def intra_class_shares(features: Features, labels: Labels) -> Values:
    """What each item adds to `intra_class_distance`, (N,): their mean is the distance.

    NaN for an item that has no other one of its class. Each class weighs the same.
    """
    found, counts = np.unique(labels, return_counts=True)
    classes = found[(counts >= 2) & (found >= 0)]
    shares = np.full(len(labels), np.nan)
    total = int(counts[(counts >= 2) & (found >= 0)].sum())
    for name in classes:
        members = labels == name
        weight = total / (members.sum() * len(classes))
        shares[members] = weight * mean_distances(features[members])
    return shares


def feature_entropy(features: Features) -> float:
    """Entropy, in nats, of the shares of variance along the principal axes of features (N, D).

    exp of it is the effective rank (Roy and Vetterli 2007, "The effective rank", equation 3): from
    0, all variance along one axis, to log D. Free of the features' scale; 0 without any variance.
    """
    variances = np.clip(np.linalg.eigvalsh(moments(features).covariance), 0, None)
    if not variances.sum():
        return 0.0
    shares: Values = variances / variances.sum()
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())
