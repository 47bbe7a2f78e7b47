"""Metrics of class probabilities and labels."""

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.metrics.samples import Flags, Labels, Values

SMOOTHING = 1.0  # added to the count of each class

Probabilities = npt.NDArray[np.floating]  # (N, C), rows sum to 1


def inception_score(probabilities: Probabilities) -> float:
    """Exp of the mean KL(p(y | x) || p(y)), over all items at once, without splits.

    From 1 to C; higher is better. Salimans et al. 2016, "Improved techniques for training GANs",
    arXiv:1606.03498, section 4. Means something only if the classifier fits the data.
    """
    _check_probabilities(probabilities)
    items = probabilities.astype(np.float64)
    entropy_of_mean = _entropy(items.mean(axis=0)[None])[0]
    return float(np.exp(entropy_of_mean - _entropy(items).mean()))


def _entropy(probabilities: Probabilities) -> Values:
    """Shannon entropy of each row, in nats."""
    logs = np.log(probabilities, where=probabilities > 0, out=np.zeros_like(probabilities))
    entropies: Values = -(probabilities * logs).sum(axis=1)
    return entropies


def class_divergence(
    real_labels: Labels, made_labels: Labels, *, classes: int, smoothing: float = SMOOTHING
) -> float:
    """KL(real || made) of the class histograms, in nats; lower is better, 0 at equality.

    `smoothing` is added to each class's count on both sides, so a class that is missing from the
    made items costs much, but not infinitely much.
    """
    real = class_shares(real_labels, classes=classes, smoothing=smoothing)
    made = class_shares(made_labels, classes=classes, smoothing=smoothing)
    return max(0.0, float((real * np.log(real / made)).sum()))


def class_shares(labels: Labels, *, classes: int, smoothing: float = 0.0) -> Values:
    """Share of each class, (classes,), after adding `smoothing` to each count."""
    if not len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise Refused(
            f"{len(labels)} labels do not all lie between 0 and {classes - 1}",
            remedy="pass one label of the judge's classes for each item",
        )
    counts = np.bincount(labels, minlength=classes) + smoothing
    shares: Values = counts / counts.sum()
    return shares


def label_agreement(asked: Labels, predicted: Labels) -> Flags:
    """Whether the judge sees the asked-for class, for each item that has one (`asked` >= 0).

    The mean is the metric; higher is better.
    """
    if asked.shape != predicted.shape:
        raise Refused(
            f"{asked.shape} asked-for labels and {predicted.shape} predicted ones",
            remedy="pass one of each for every item",
        )
    has_label = asked >= 0
    agreeing: Flags = asked[has_label] == predicted[has_label]
    return agreeing


def _check_probabilities(probabilities: Probabilities) -> None:
    if probabilities.ndim != 2 or not probabilities.size:
        raise Refused(
            f"probabilities have shape {probabilities.shape}",
            remedy="pass one row for each item, with one probability for each class",
        )
    if not (probabilities >= 0).all() or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise Refused(
            "a row of class probabilities does not sum to 1", remedy="apply softmax first"
        )
