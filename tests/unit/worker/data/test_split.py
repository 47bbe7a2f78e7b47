"""Which split an item lands in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.errors import Refused
from worker.data.dataset import TEST, TRAIN, VALIDATION
from worker.data.split import (
    UNASSIGNED,
    assign_splits,
    checked_ratio,
    count_splits,
    cut_points,
    hash_of,
)

RATIO = (90, 5, 5)


def places(*items: bytes) -> np.ndarray:
    return np.array([hash_of(item) for item in items], np.uint64)


def numbered(count: int) -> np.ndarray:
    return places(*(str(number).encode() for number in range(count)))


def free(count: int) -> np.ndarray:
    return np.full(count, UNASSIGNED, np.uint8)


def test_the_shares_are_those_asked_for():
    train, validation, test = count_splits(assign_splits(numbered(20_000), free(20_000), RATIO))
    assert abs(train - 18_000) < 200
    assert abs(validation - 1_000) < 120
    assert abs(test - 1_000) < 120


def test_an_item_stays_where_it_was_when_others_come_and_in_any_order():
    items = numbered(1000)
    codes = assign_splits(items, free(1000), RATIO)
    assert (assign_splits(numbered(3000), free(3000), RATIO)[:1000] == codes).all()
    assert (assign_splits(items[::-1], free(1000), RATIO)[::-1] == codes).all()


def test_a_share_of_zero_gets_nothing():
    assert count_splits(assign_splits(numbered(2000), free(2000), (90, 10, 0)))[2] == 0
    assert count_splits(assign_splits(numbered(2000), free(2000), (1, 0, 0))) == (2000, 0, 0)


def test_a_test_set_that_came_with_the_data_stays_and_takes_no_more():
    codes = free(2000)
    codes[:100] = TEST
    result = assign_splits(numbered(2000), codes, RATIO)
    assert (result[:100] == TEST).all()
    assert (result[100:] != TEST).all()
    assert abs((result == VALIDATION).sum() - 100) < 40  # 5 of 95


def test_a_lone_test_set_is_split_like_any_data():
    result = assign_splits(numbered(2000), np.full(2000, TEST, np.uint8), RATIO)
    assert count_splits(result)[TRAIN] > 1700


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 10))
def test_training_and_validation_are_never_empty_and_duplicates_never_straddle(items, tests):
    where = places(*(str(item).encode() for item in items))
    codes = free(len(items))
    codes[: min(tests, len(items) - 1)] = TEST
    result = assign_splits(where, codes, RATIO)
    assert (result == TRAIN).any()
    unset = codes == UNASSIGNED
    if len(set(where[unset])) > 1:
        assert (result == VALIDATION).any()
    for each in set(where[unset]):
        assert len(set(result[unset & (where == each)])) == 1
    assert (result[~unset] == TEST).all()


def test_a_text_is_cut_in_order():
    assert cut_points(1000, RATIO) == (900, 950)
    assert cut_points(1_115_394, (90, 10, 0)) == (1_003_854, 1_115_394)


@given(st.integers(2, 60))
def test_a_short_text_still_trains_and_validates(length):
    train, validation = cut_points(length, RATIO)
    assert 0 < train < validation <= length


def test_a_text_of_one_character_trains():
    assert cut_points(1, RATIO) == (1, 1)


@pytest.mark.parametrize("ratio", [(90, 10), (0, 50, 50), (90, -5, 15), (1, 2, 3, 4)])
def test_a_split_that_makes_no_sense_is_refused(ratio):
    with pytest.raises(Refused, match="three whole numbers"):
        checked_ratio(ratio)
