"""The interval of a difference is as wide as repeated experiments are apart."""

from dataclasses import replace

import numpy as np
import pytest

from db.errors import NonFinite, Refused
from tests.evaluations import classes, images, number, texts
from worker.gate.differences import difference, training_noise
from worker.gate.items import Items
from worker.gate.resampling import SMALLEST_STRATUM, draw_counts
from worker.metrics.neighbourhoods import neighbourhoods


def improvements(metric, pairs):
    """What is stated as the noise of each, together, and what the noise is."""
    found = [difference(metric, *pair, resamples=60, seed=0) for pair in pairs]
    stated = np.sqrt(np.mean([each.sd**2 for each in found]))
    return stated, np.std([each.improvement for each in found])


def test_items_are_drawn_within_their_asked_for_classes():
    [counts] = draw_counts([(50, np.arange(50) % 5)], range(20), seed=0)
    assert (counts.reshape(20, 10, 5).sum(axis=1) == 10).all()


def test_items_of_classes_with_few_are_drawn_together():
    """One item of a class alone would be drawn each time, as if it could be no other."""
    labels = np.concatenate([np.zeros(SMALLEST_STRATUM, int), np.arange(1, 21)])
    [counts] = draw_counts([(len(labels), labels)], range(40), seed=0)
    assert (counts[:, :SMALLEST_STRATUM].sum(axis=1) == SMALLEST_STRATUM).all()
    assert (counts[:, SMALLEST_STRATUM:] == 0).any()
    assert (counts.sum(axis=1) == len(labels)).all()


def test_a_resample_does_not_depend_on_the_batch_that_it_is_drawn_in():
    sets = [(30, None), (20, None)]
    together = draw_counts(sets, range(6), seed=1)
    alone = draw_counts(sets, range(5, 6), seed=1)
    assert all((a[5] == b[0]).all() for a, b in zip(together, alone, strict=True))


def with_recall(items):
    made, real = items.arrays["made_features"], items.arrays["real_features"]
    share = float(neighbourhoods(real, made).recall.mean())
    return replace(items, numbers={"recall": number("recall", share)})


@pytest.mark.parametrize(
    ("metric", "make"),
    [
        ("kid", lambda seed: images(seed, shift=0.4)),
        ("recall", lambda seed: with_recall(images(seed, shift=0.4, count=200))),
        ("label_agreement", classes),
    ],
)
def test_the_stated_noise_is_that_between_repeated_experiments(metric, make):
    stated, true = improvements(metric, ((make(2 * i), make(2 * i + 1)) for i in range(30)))
    assert stated == pytest.approx(true, rel=0.35)


def test_where_nothing_is_left_to_gain_the_noise_is_overstated_never_understated():
    perfect = ((images(2 * i), images(2 * i + 1)) for i in range(30))
    stated, true = improvements("kid", perfect)
    assert true < stated < 3 * true


def test_pairing_removes_what_both_versions_share():
    found = difference("loss", texts(1), texts(2), resamples=200, seed=0)
    assert found.sd < 0.01  # the documents' own hardness has a standard error of 0.02


def bits(items, characters):
    """The same rows by their characters, which another tokenizer may cut in another way."""
    value = float(items.arrays["nll"].sum() / characters.sum() / np.log(2))
    arrays = {**items.arrays, "characters": characters}
    return Items(arrays, {"bits_per_character": number("bits_per_character", value)}, "p")


def test_rows_that_two_tokenizers_cut_are_drawn_apart():
    """There may be more rows of one; what both share does not cancel then."""
    one = bits(texts(1), np.full(300, 500))
    paired = difference("bits_per_character", one, one, resamples=100, seed=0)
    other = texts(1, tokenizer=2)
    halves = {name: np.tile(other.arrays[name] / 2, 2) for name in ("nll", "tokens")}
    cut = bits(replace(other, arrays=other.arrays | halves), np.full(600, 250))
    apart = difference("bits_per_character", cut, one, resamples=100, seed=0)
    assert apart.improvement == pytest.approx(paired.improvement, abs=1e-9)
    assert apart.sd > 0.005 > paired.sd == 0
    with pytest.raises(Refused, match="decide by bits_per_character"):
        difference("loss", texts(1), texts(2, tokenizer=2), resamples=100, seed=0)


def test_unequal_sizes_are_never_compared():
    with pytest.raises(Refused, match="400 and 300 items: unequal sizes are never compared"):
        difference("kid", images(1), images(2, count=300), resamples=100, seed=0)


def test_a_number_that_is_undefined_in_a_resample_decides_nothing():
    """Of 20 samples one holds notes: some resamples hold none."""
    arrays = {"made_intervals": np.eye(20)[:, :3] * 5, "real_intervals": np.ones((20, 3))}
    arrays["made_intervals"][1:] = 0
    items = Items(arrays, {"interval_histogram": number("interval_histogram", 0.3)}, "p")
    with pytest.raises(NonFinite, match=r"interval_histogram is undefined in \d+ of 100 resamples"):
        difference("interval_histogram", items, items, resamples=100, seed=0)


def test_the_noise_between_training_seeds_leaves_out_that_of_the_items():
    assert training_noise("loss", [texts(i) for i in range(5)], resamples=200, seed=0) < 0.004
    apart = [texts(i, better_by=gain) for i, gain in enumerate((0.0, 0.1, 0.2))]
    assert training_noise("loss", apart, resamples=200, seed=0) == pytest.approx(0.1, rel=0.1)
    with pytest.raises(Refused, match="three or more"):
        training_noise("loss", apart[:2], resamples=200, seed=0)
