"""The gate can decide by every number of an evaluation: each follows from resampled items."""

from functools import partial

import numpy as np
import pytest

from worker.gate import distances, sums
from worker.gate.primaries import PRIMARIES
from worker.metrics import classes, diversity, ngrams, sounds, text_diversity, transport
from worker.metrics.catalogue import METRICS, of_medium
from worker.metrics.frechet import frechet_distance
from worker.metrics.histograms import overlap
from worker.metrics.kernel import squared_mmd
from worker.metrics.neighbourhoods import neighbourhoods

RANDOM = np.random.default_rng(3)
COUNT, WIDTH, CLASSES = 40, 5, 4
MADE, REAL = (RANDOM.normal(shift, size=(COUNT, WIDTH)) for shift in (0.3, 0.0))
SOFT = RANDOM.dirichlet(np.ones(CLASSES), COUNT), RANDOM.dirichlet(np.ones(CLASSES), COUNT)
ROWS = RANDOM.integers(0, 5, (2, COUNT, 6))
TEXTS = [RANDOM.integers(0, 9, size).tolist() for size in RANDOM.integers(0, 12, COUNT)]
REFERENCES = [RANDOM.integers(0, 9, size).tolist() for size in RANDOM.integers(1, 12, COUNT)]
BLEU = np.array([ngrams.bleu_counts(*pair) for pair in zip(TEXTS, REFERENCES, strict=True)])
CHRF = np.array(
    [
        ngrams.chrf_counts("".join(map(str, one)), "".join(map(str, other)))
        for one, other in zip(TEXTS, REFERENCES, strict=True)
    ]
)
SPECTRA = RANDOM.normal(size=(2, COUNT, sum(frame // 2 + 1 for frame in sounds.FRAMES)))
IDS = np.array([word for text in TEXTS for word in text])
LENGTHS = np.array(list(map(len, TEXTS)))


def kl(made, real):
    labels = (each.argmax(axis=1) for each in (real, made))
    return classes.class_divergence(*labels, classes=CLASSES)


def test_every_number_of_an_evaluation_can_decide():
    assert PRIMARIES.keys() == METRICS.keys()
    assert {name for medium in ("image", "audio", "text") for name in of_medium(medium)} == {
        *METRICS
    }


# by metric: its statistic, and the metric of items that may be repeated
REPEATED = {
    "fid": (distances.frechet(MADE, REAL), lambda m, r: frechet_distance(REAL[r], MADE[m])),
    "mind": (
        distances.monge(MADE, REAL),
        lambda m, r: transport.monge_distance(REAL[r], MADE[m], projections=distances.PROJECTIONS),
    ),
    "emd": (
        distances.sliced(MADE, REAL),
        lambda m, r: transport.sliced_distance(REAL[r], MADE[m], projections=distances.PROJECTIONS),
    ),
    "spectral_distance": (
        distances.spectral(*SPECTRA),
        lambda m, r: sounds.spectral_distance(SPECTRA[1][r], SPECTRA[0][m]),
    ),
    "class_kl": (sums.class_divergence(*SOFT), lambda m, r: kl(SOFT[0][m], SOFT[1][r])),
    "histogram": (
        sums.histogram_overlap(*ROWS),
        lambda m, r: overlap(ROWS[1][r].sum(axis=0), ROWS[0][m].sum(axis=0)),
    ),
    "feature_entropy": (
        distances.feature_entropy(MADE),
        lambda m, r: diversity.feature_entropy(MADE[m]),
    ),
    "inception_score": (
        sums.inception_score(SOFT[0]),
        lambda m, r: classes.inception_score(SOFT[0][m]),
    ),
    "bleu": (sums.bleu(BLEU), lambda m, r: ngrams.bleu(BLEU[m])),
    "chrf": (sums.chrf(CHRF), lambda m, r: ngrams.chrf(CHRF[m])),
    "distinct_1": (
        sums.distinct(IDS, LENGTHS, n=1),
        lambda m, r: text_diversity.distinct([TEXTS[place] for place in m], 1),
    ),
    "distinct_3": (
        sums.distinct(IDS, LENGTHS, n=3),
        lambda m, r: text_diversity.distinct([TEXTS[place] for place in m], 3),
    ),
    "near real": (
        sums.apart(distances.feature_entropy)(MADE, REAL),
        lambda m, r: abs(diversity.feature_entropy(MADE[m]) - diversity.feature_entropy(REAL[r])),
    ),
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_resample_has_the_value_of_the_items_that_it_repeats(name):
    statistic, value = REPEATED[name]
    draws = np.random.default_rng(1).integers(COUNT, size=(3, 2, COUNT))
    counts = np.array([[np.bincount(side, minlength=COUNT) for side in draw] for draw in draws])
    sides = [counts[:, side].astype(float) for side in range(2)]
    both = name in {"fid", "mind", "emd", "spectral_distance", "class_kl", "histogram", "near real"}
    expected = [value(*(np.sort(side) for side in draw)) for draw in draws]
    assert statistic(sides if both else sides[:1]) == pytest.approx(expected, rel=1e-9)


def of_neighbours(name):
    return float(np.mean(getattr(neighbourhoods(REAL, MADE), name)))


# what depends on which pairs of items are different ones
WHOLE = {
    "kid": (distances.kernel, lambda: squared_mmd(REAL, MADE)),
    "precision": (distances.precision, partial(of_neighbours, "precision")),
    "recall": (distances.recall, partial(of_neighbours, "recall")),
    "density": (distances.density, partial(of_neighbours, "density")),
    "coverage": (distances.coverage, partial(of_neighbours, "coverage")),
}


@pytest.mark.parametrize("name", WHOLE)
def test_all_items_once_have_the_value_of_the_metric(name):
    prepare, value = WHOLE[name]
    once = [np.ones((1, COUNT))] * 2
    scale = COUNT / (COUNT - 1) if name == "kid" else 1  # pairs are rarer in a resample
    got = prepare(MADE, REAL)(once)[0]
    if name == "kid":
        within = (squared_mmd(REAL, MADE) + 2 * between()) * scale
        assert got == pytest.approx(within - 2 * between(), rel=1e-9)
    else:
        assert got == pytest.approx(value(), rel=1e-6)


def between():
    return float(((MADE @ REAL.T / WIDTH + 1) ** 3).mean())


def test_the_spread_of_a_mean_over_pairs_counts_each_item_twice():
    statistic = distances.pair_distance(MADE)
    once = statistic([np.ones((1, COUNT))])[0]
    assert once == pytest.approx(diversity.perceptual_diversity(MADE), rel=1e-9)
    draws = np.random.default_rng(2).multinomial(COUNT, np.full(COUNT, 1 / COUNT), 400)
    means = statistic([draws.astype(float)])
    exact = [
        diversity.perceptual_diversity(np.repeat(MADE, draw, axis=0)) * COUNT / (COUNT - 1)
        for draw in draws
    ]
    assert means.std() == pytest.approx(np.std(exact), rel=0.1)


def test_classes_of_one_item_have_no_pairs():
    labels = np.array([0] * 20 + list(range(1, 21)))
    features, soft = MADE, np.eye(21)[labels]
    value = distances.intra_class_distance(features, soft)([np.ones((1, COUNT))])[0]
    assert value == pytest.approx(diversity.perceptual_diversity(features[:20]), rel=1e-9)
    alone = distances.intra_class_distance(features[:21], np.eye(21))([np.ones((2, 21))])
    assert np.isnan(alone).all()


def test_texts_without_words_are_no_error():
    nothing = sums.distinct(np.zeros(0, np.int32), np.zeros(3, np.int64), n=2)
    assert nothing([np.ones((2, 3))]).tolist() == [0, 0]
    silent = sums.histogram_overlap(np.zeros((3, 4)), np.ones((3, 4)))
    assert np.isnan(silent([np.ones((1, 3))] * 2)).all()
