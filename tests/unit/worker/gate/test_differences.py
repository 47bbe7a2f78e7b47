"""The interval of a difference is as wide as repeated experiments are apart."""

import numpy as np
import pytest

from db.errors import Refused
from tests.evaluations import REAL, classes, images, texts
from worker.gate.differences import difference, training_noise
from worker.gate.primaries import PRIMARIES
from worker.gate.resampling import draw_counts
from worker.metrics.frechet import frechet_distance


def test_the_frechet_distance_is_that_of_the_metrics_room():
    items = images(3, shift=0.2)
    expected = frechet_distance(REAL, items.arrays["made_features"])
    assert PRIMARIES["fid"].value(items) == pytest.approx(expected, 1e-9)


def test_a_resample_has_the_value_of_the_items_that_it_repeats():
    items, fid = images(3, shift=0.2), PRIMARIES["fid"]
    counts = draw_counts(fid.sets(items), range(3), seed=0)
    for value, made, real in zip(fid.values(items, counts), *counts, strict=True):
        repeated = (
            np.repeat(items.arrays[name], each.astype(int), axis=0)
            for name, each in (("real_features", real), ("made_features", made))
        )
        assert value == pytest.approx(frechet_distance(*repeated), 1e-9)


def test_items_are_drawn_within_their_asked_for_classes():
    [counts] = draw_counts([(50, np.arange(50) % 5)], range(20), seed=0)
    assert (counts.reshape(20, 10, 5).sum(axis=1) == 10).all()


def test_a_resample_does_not_depend_on_the_batch_that_it_is_drawn_in():
    sets = [(30, None), (20, None)]
    together = draw_counts(sets, range(6), seed=1)
    alone = draw_counts(sets, range(5, 6), seed=1)
    assert all((a[5] == b[0]).all() for a, b in zip(together, alone, strict=True))


def improvements(metric, pairs):
    """What is stated as the noise of each, together, and what the noise is."""
    found = [difference(PRIMARIES[metric], *pair, resamples=60, seed=0) for pair in pairs]
    stated = np.sqrt(np.mean([each.sd**2 for each in found]))
    return stated, np.std([each.improvement for each in found])


def test_the_stated_noise_is_that_between_repeated_experiments():
    far = ((images(2 * i, shift=0.3), images(2 * i + 1, shift=0.3)) for i in range(30))
    stated, true = improvements("fid", far)
    assert stated == pytest.approx(true, rel=0.3)
    some = ((classes(2 * i), classes(2 * i + 1)) for i in range(30))
    stated, true = improvements("label_agreement", some)
    assert stated == pytest.approx(true, rel=0.3)


def test_where_nothing_is_left_to_gain_the_noise_is_overstated_never_understated():
    perfect = ((images(2 * i), images(2 * i + 1)) for i in range(30))
    stated, true = improvements("fid", perfect)
    assert true < stated < 3 * true


def test_pairing_removes_what_both_versions_share():
    found = difference(PRIMARIES["loss"], texts(1), texts(2), resamples=200, seed=0)
    assert found.sd < 0.01  # the documents' own hardness has a standard error of 0.02


def test_the_noise_between_training_seeds_leaves_out_that_of_the_items():
    loss = PRIMARIES["loss"]
    assert training_noise(loss, [texts(i) for i in range(5)], resamples=200, seed=0) < 0.004
    apart = [texts(i, better_by=gain) for i, gain in enumerate((0.0, 0.1, 0.2))]
    assert training_noise(loss, apart, resamples=200, seed=0) == pytest.approx(0.1, rel=0.1)
    with pytest.raises(Refused, match="three or more"):
        training_noise(loss, apart[:2], resamples=200, seed=0)
