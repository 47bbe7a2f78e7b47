"""Intervals hold what they promise, and two halves share no item."""

import numpy as np
import pytest
from scipy import stats

from db.errors import Refused
from worker.metrics.bootstrap import draws, halves, interval, interval_of_pairs
from worker.metrics.classes import label_agreement
from worker.metrics.distances import mean_distances
from worker.metrics.frechet import frechet_distance
from worker.metrics.samples import Features, Labels


def test_interval_of_a_mean_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=200)
    ours = interval(np.mean, values, resamples=4_000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert ours.value == values.mean()
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_intervals_of_a_mean_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    found = [interval(np.mean, random.normal(size=80), resamples=200) for _ in range(200)]
    held = sum(one.low <= 0 <= one.high for one in found)
    assert 0.91 < held / 200 < 0.985


def test_intervals_of_a_mean_over_pairs_hold_the_truth_as_often_as_they_say() -> None:
    random, held = np.random.default_rng(3), 0
    for _ in range(200):
        means = mean_distances(random.normal(size=(80, 1)))
        found = interval_of_pairs(means, resamples=200)
        held += found.low <= 2 / np.sqrt(np.pi) <= found.high  # of normal numbers
    assert 0.9 < held / 200 < 0.985


def test_an_interval_of_a_distance_holds_its_value(real: Features, made: Features) -> None:
    ours = interval(frechet_distance, real, made, resamples=200)
    assert ours.low < ours.value < ours.high


def test_equal_seeds_give_equal_intervals_and_longer_ones_begin_alike(real: Features) -> None:
    assert interval(np.mean, real, seed=5, resamples=50) == interval(
        np.mean, real, seed=5, resamples=50
    )
    short, long = (list(draws([30, 20], count, 1)) for count in (3, 6))
    for ours, theirs in zip(short, long, strict=False):
        assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))


def test_arrays_of_one_sample_keep_their_items_together() -> None:
    asked = np.arange(50)

    def agreement(pair: tuple[Labels, Labels]) -> float:
        return float(label_agreement(*pair).mean())

    assert interval(agreement, (asked, asked.copy()), resamples=20) == (1, 1, 1)


def test_halves_are_disjoint_and_seeded() -> None:
    left, right = halves(11, size=5, seed=2)
    assert len({*left, *right}) == 10
    assert (left == halves(11, size=5, seed=2)[0]).all()
    assert (left != halves(11, size=5, seed=3)[0]).any()


def test_unusable_arguments_are_refused() -> None:
    with pytest.raises(Refused, match="no two disjoint halves of 6"):
        halves(11, size=6)
    with pytest.raises(Refused, match="no items"):
        interval(np.mean, np.empty(0))
    with pytest.raises(Refused, match="3, 4 items"):
        interval(np.mean, (np.ones(3), np.ones(4)))
    with pytest.raises(Refused, match="1 resamples"):
        interval(np.mean, np.ones(3), resamples=1)
