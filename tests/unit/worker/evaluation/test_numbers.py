"""Numbers keep to the range that their metric has."""

import pytest

from worker.evaluation.numbers import Numbers
from worker.metrics.bootstrap import Interval


@pytest.mark.parametrize(
    ("name", "low", "high"), [("recall", 0.97, 1.0), ("fid", 0.97, 1.01), ("kid", 0.97, 1.01)]
)
def test_the_interval_of_a_share_ends_at_one(name, low, high):
    numbers = Numbers()
    numbers.add(name, Interval(0.99, 0.97, 1.01), n=100)
    assert (numbers.found[name].low, numbers.found[name].high) == (low, high)
