"""The numbers that images and pictures of sounds have in common."""

from functools import partial

import numpy as np

from worker.evaluation import usefulness
from worker.evaluation.distances import add_distances, intra_class_interval
from worker.evaluation.judge import Judge
from worker.evaluation.numbers import RESAMPLES, Numbers
from worker.evaluation.seen import Pictures
from worker.evaluation.stages import Stage
from worker.metrics import bootstrap, classes, diversity, memorisation, ssim
from worker.metrics.samples import Flags


def measure_pictures(pictures: Pictures, stage: Stage) -> Numbers:
    """The numbers that images and pictures of sounds have in common."""
    numbers, other = Numbers(), pictures.other
    made, real = pictures.judged, pictures.held_out.judged
    alike = None if other is None else other.judged.features
    add_distances(numbers, made.features, real.features, alike, stage.part("distances", 0, 0.9))
    _add_memorisation(numbers, pictures)
    if pictures.names:
        _add_classes(numbers, pictures)
    else:
        reason = "the dataset has no labels"
        numbers.leave_out(reason, "inception_score", "class_kl", "intra_class_distance")
    _add_ssim(numbers, pictures)
    stage.tick(1, 1)
    return numbers


def add_agreement(numbers: Numbers, name: str, pictures: Pictures) -> None:
    """Add the share of samples in which the judge sees the asked-for class."""
    if not pictures.names or (pictures.asked < 0).all():
        numbers.leave_out("the samples are asked for no class that the dataset knows", name)
        return
    right = classes.label_agreement(pictures.asked, pictures.judged.labels).astype(np.float64)
    labels = pictures.held_out.items.labels
    assert labels is not None  # noqa: S101 - for mypy: there are names
    real = float((pictures.held_out.judged.labels == labels).mean())
    numbers.add(name, bootstrap.interval(np.mean, right), n=len(right), real=real)


def add_usefulness(
    numbers: Numbers, pictures: Pictures, judge: Judge, stage: Stage
) -> dict[str, Flags]:
    """Add a classifier's accuracy on held-out items after training on made ones, and on real.

    Returns the array of which held-out items it named rightly; none if there are no classes.
    """
    name = "made_to_real_accuracy"
    if not pictures.names or (pictures.asked < 0).any():
        numbers.leave_out("the samples are asked for no class to train a classifier on", name)
        return {}
    items, other = pictures.held_out.items, pictures.other
    assert items.labels is not None  # noqa: S101 - for mypy: there are names
    tested = partial(
        usefulness.correct_after,
        test=items.pixels,
        test_labels=items.labels,
        classes=len(pictures.names),
        device=judge.scale.device,
    )
    right = tested(pictures.made, pictures.asked, stage=stage.part("on made", 0, 0.5))
    real = None
    if other is not None and other.items.labels is not None:
        known, labels = other.items.pixels, other.items.labels
        real = float(tested(known, labels, stage=stage.part("on real", 0.5, 1)).mean())
    found = bootstrap.interval(np.mean, right.astype(np.float64))
    numbers.add(name, found, n=len(right), real=real)
    return {"real_classified": right}


def _add_memorisation(numbers: Numbers, pictures: Pictures) -> None:
    near, known = pictures.neighbours.made, pictures.neighbours.held_out
    closer = memorisation.closer_than_held_out(near, known).astype(np.float64)
    real = float(memorisation.closer_than_held_out(known, known).mean())
    numbers.add("memorisation", bootstrap.interval(np.mean, closer), n=len(closer), real=real)


def _add_classes(numbers: Numbers, pictures: Pictures) -> None:
    made, real, n = pictures.judged, pictures.held_out.judged, len(pictures.made)
    score = bootstrap.interval(classes.inception_score, made.probabilities, resamples=RESAMPLES)
    sure = classes.inception_score(real.probabilities)
    numbers.add("inception_score", score, n=n, real=sure)
    divergence = partial(classes.class_divergence, classes=len(pictures.names))
    found = bootstrap.interval(divergence, real.labels, made.labels)
    other = pictures.other
    alike = None if other is None else divergence(real.labels, other.judged.labels)
    numbers.add("class_kl", found, n=n, real=alike)
    within = intra_class_interval(made.features, made.labels)
    if within is None:
        numbers.leave_out("no class has two samples", "intra_class_distance")
        return
    distance = diversity.intra_class_distance(real.features, real.labels)
    numbers.add("intra_class_distance", within, n=n, real=distance)


def _add_ssim(numbers: Numbers, pictures: Pictures) -> None:
    if min(pictures.made.shape[1:3]) <= 2 * ssim.RADIUS:
        numbers.leave_out("the pictures are smaller than SSIM's window", "ssim_diversity")
        return
    if not numbers.suits(len(pictures.made), "ssim_diversity"):
        return
    pairs, alike = pictures.dissimilarities
    found = bootstrap.interval(np.mean, pairs)
    numbers.add("ssim_diversity", found, n=len(pairs), real=float(alike.mean()))
