"""Metrics of class probabilities and labels."""

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.metrics.histograms import SMOOTHING, Counts, divergence
from worker.metrics.samples import Flags, Labels, Values

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
    """`divergence` of the class histograms: KL(real || made) in nats; lower is better."""
    return divergence(
        class_counts(real_labels, classes=classes),
        class_counts(made_labels, classes=classes),
        smoothing=smoothing,
    )


def class_counts(labels: Labels, *, classes: int) -> Counts:
    """Number of items of each class, (classes,)."""
    if not len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise Refused(
            f"{len(labels)} labels do not all lie between 0 and {classes - 1}",
            remedy="pass one label of the judge's classes for each item",
        )
    counts: Counts = np.bincount(labels, minlength=classes)
    return counts


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
