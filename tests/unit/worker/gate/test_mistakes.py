"""How often the gate is wrong, on drawn data; `tests.results.gate` tries more, on real data."""

import pytest

from tests.evaluations import classes, images, policy, texts
from worker.gate.decide import decide

EQUAL, BETTER = 60, 20
# make, how to make the better one, twice the margin: what that truly gains
CASES = {
    "kid": (images, {"shift": 0.3}, {"shift": 0.0}, 0.35),
    "loss": (texts, {}, {"better_by": 0.03}, 0.03),
    "label_agreement": (classes, {"right": 0.7}, {"right": 0.83}, 0.13),
}


def promotions(metric, worse, better, margin, trials):
    make, rule = CASES[metric][0], policy(metric, resamples=100, margin=margin)
    pairs = ((make(2 * i, **better), make(2 * i + 1, **worse)) for i in range(trials))
    return sum(decide(*pair, rule).promoted for pair in pairs)


@pytest.mark.parametrize("metric", CASES)
def test_at_most_one_of_twenty_equals_is_called_better(metric):
    worse = CASES[metric][1]
    assert promotions(metric, worse, worse, 0.0, EQUAL) <= EQUAL // 20


@pytest.mark.parametrize("metric", CASES)
def test_what_is_better_by_twice_the_margin_is_promoted_four_times_of_five(metric):
    _, worse, better, gain = CASES[metric]
    assert promotions(metric, worse, better, gain / 2, BETTER) >= BETTER * 4 // 5
