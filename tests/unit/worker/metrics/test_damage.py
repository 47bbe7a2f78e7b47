"""On real digits, every metric worsens as noise, blur, lost classes or copies grow.

Features are principal components of pixels: fixed, and good enough to tell digits apart.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from worker.metrics.classes import class_divergence, inception_score
from worker.metrics.distances import nearest
from worker.metrics.diversity import feature_entropy, intra_class_distance
from worker.metrics.frechet import frechet_distance
from worker.metrics.kernel import kernel_distance
from worker.metrics.memorisation import closer_than_held_out, copying_probability
from worker.metrics.neighbourhoods import neighbourhoods
from worker.metrics.samples import Features, Labels
from worker.metrics.ssim import Pictures, ssim, ssim_diversity
from worker.metrics.transport import earth_movers_distance, monge_distance

SIZE = 1_000

Judge = Callable[[Pictures], Features]
Damage = Callable[[float], Pictures]


class Parts(NamedTuple):
    """Disjoint digits: what a model learns from, what it is judged by, and what it makes."""

    train: Pictures
    held_out: Pictures
    made: Pictures
    held_out_labels: Labels
    made_labels: Labels


@pytest.fixture(scope="module")
def parts(digits: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]) -> Parts:
    pictures, labels = digits
    cuts = [slice(start, start + SIZE) for start in (0, SIZE, 2 * SIZE)]
    return Parts(*(pictures[cut] for cut in cuts), *(labels[cut] for cut in cuts[1:]))


@pytest.fixture(scope="module")
def judge(parts: Parts) -> Judge:
    flat = parts.train.reshape(SIZE, -1) / 255
    mean = flat.mean(axis=0)
    axes = np.linalg.eigh(np.cov(flat, rowvar=False))[1][:, -32:]
    return lambda pictures: (pictures.reshape(len(pictures), -1) / 255 - mean) @ axes


def grows(values: list[float]) -> bool:
    return all(less < more for less, more in itertools.pairwise(values))


def distances(real: Features, made: Features) -> dict[str, float]:
    return {
        "fid": frechet_distance(real, made),
        "kid": kernel_distance(real, made, subsets=5),
        "mind": monge_distance(real, made, projections=100),
        "emd": earth_movers_distance(real, made),
    }


def noisy(pictures: Pictures, level: float) -> Pictures:
    noise = level * np.random.default_rng(0).standard_normal(pictures.shape)
    return np.clip(pictures + noise, 0, 255).astype(np.uint8)


def blurred(pictures: Pictures, sigma: float) -> Pictures:
    return gaussian_filter(pictures, (0, sigma, sigma))


@pytest.mark.parametrize(
    ("damage", "levels"), [(noisy, (0, 30, 60, 120)), (blurred, (0, 0.7, 1.2, 2))]
)
def test_distances_grow_and_fidelity_falls(
    damage: Callable[[Pictures, float], Pictures],
    levels: tuple[float, ...],
    parts: Parts,
    judge: Judge,
) -> None:
    real = judge(parts.held_out)
    found = [judge(damage(parts.made, level)) for level in levels]
    scores = [distances(real, made) for made in found]
    # real items do not reach the best value of these two either, and slightly damaged ones, which
    # lie nearer to the mean, come a little nearer to it
    assert grows([score.pop("emd") for score in scores[1:]])
    near = [neighbourhoods(real, made) for made in found[1:]]
    assert grows([-float(one.coverage.mean()) for one in near])
    scores[0].pop("emd")
    for name in scores[0]:
        assert grows([score[name] for score in scores]), name
    similar = [float(ssim(parts.made, damage(parts.made, level)).mean()) for level in levels]
    assert similar[0] == pytest.approx(1)
    assert grows([-value for value in similar])


def test_noisy_features_fall_out_of_the_neighbourhoods_of_real_ones(
    parts: Parts, judge: Judge
) -> None:
    real, made = judge(parts.held_out), judge(parts.made)
    noise = np.random.default_rng(0).standard_normal(made.shape)
    near = [neighbourhoods(real, made + level * noise) for level in (0, 0.3, 0.6, 1.2)]
    assert grows([-float(one.precision.mean()) for one in near])
    assert grows([-float(one.density.mean()) for one in near])
    assert grows([-float(one.coverage.mean()) for one in near])
    assert grows([float(one.recall.mean()) for one in near])  # wide balls hold more


def test_lost_classes_are_seen(parts: Parts, judge: Judge) -> None:
    real = judge(parts.held_out)
    kept = [np.flatnonzero(parts.made_labels < most) for most in (10, 8, 5, 2)]
    kept = [np.resize(found, SIZE) for found in kept]  # repeated up to equal sizes
    made = [judge(parts.made[found]) for found in kept]
    scores = [distances(real, one) for one in made]
    for name in scores[0]:
        assert grows([score[name] for score in scores]), name
    near = [neighbourhoods(real, one) for one in made]
    assert grows([-float(one.recall.mean()) for one in near])
    assert grows([-float(one.coverage.mean()) for one in near])
    labels = [parts.made_labels[found] for found in kept]
    assert grows([class_divergence(parts.held_out_labels, one, classes=10) for one in labels])
    assert grows([-inception_score(np.eye(10)[one]) for one in labels])
    assert grows([-feature_entropy(one) for one in made])


def test_collapsed_samples_are_less_diverse(parts: Parts, judge: Judge) -> None:
    kept = [np.arange(SIZE) % different for different in (SIZE, 100, 25, 10)]
    made = [(judge(parts.made[found]), parts.made_labels[found]) for found in kept]
    assert grows([-intra_class_distance(*one) for one in made])
    assert grows([-ssim_diversity(parts.made[found]) for found in kept[1:]])


def test_copies_of_training_items_are_seen_though_distances_fall(
    parts: Parts, judge: Judge
) -> None:
    train, held_out = judge(parts.train), judge(parts.held_out)
    unseen = nearest(held_out, train)[0]
    made = noisy(parts.made, 40)
    shares, probabilities, frechet = [], [], []
    for copies in (0, 100, 500, SIZE):
        features = judge(np.concatenate([parts.train[:copies], made[copies:]]))
        lengths = nearest(features, train)[0]
        shares.append(float(closer_than_held_out(lengths, unseen).mean()))
        probabilities.append(copying_probability(lengths, unseen))
        frechet.append(frechet_distance(held_out, features))
    assert grows(shares)
    assert grows(probabilities)
    assert grows([-value for value in frechet])
    assert shares[0] < 0.02
    assert shares[-1] == probabilities[-1] == 1


def test_unseen_digits_are_no_copies(parts: Parts, judge: Judge) -> None:
    train = judge(parts.train)
    made, unseen = (nearest(judge(one), train)[0] for one in (parts.made, parts.held_out))
    assert 0.002 < closer_than_held_out(made, unseen).mean() < 0.025
    assert 0.47 < copying_probability(made, unseen) < 0.53
