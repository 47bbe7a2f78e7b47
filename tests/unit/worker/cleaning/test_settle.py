"""The second pass: which equal items stay, and to which split groups of near-duplicates go."""

import json
from typing import ClassVar

import numpy as np
import pytest

from worker.cleaning.alike.groups import Likeness
from worker.cleaning.settle import Settlement
from worker.data.dataset import TEST, TRAIN, VALIDATION, LocalDataset
from worker.data.items import ItemIndex
from worker.data.split import UNASSIGNED

RATIO = (50, 25, 25)


class Pairs(Likeness):
    """Items that are said to be alike."""

    parameters: ClassVar = {"hash": "none"}

    def __init__(self, *pairs):
        self._pairs = np.array(pairs)

    def candidates(self):
        yield self._pairs

    def alike(self, pairs):
        return np.ones(len(pairs), bool)


def index(*items, inherited=0):
    """An index of (content, label, split)."""
    made = ItemIndex(inherited)
    for content, label, split in items:
        made.add(content, label, split)
    return made


def free(count):
    return [(bytes([n]), None, UNASSIGNED) for n in range(count)]


@pytest.fixture
def parent(tmp_path):
    manifest = {"counts": {"train": 2, "validation": 0, "test": 1}, "labels": [], "stated": [TEST]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return LocalDataset(tmp_path)


def test_of_equal_items_the_one_in_the_stated_test_data_stays():
    items = index(
        (b"a", 0, UNASSIGNED), (b"b", 0, UNASSIGNED), (b"a", 0, TEST), (b"a", 1, UNASSIGNED)
    )
    settlement = Settlement(RATIO, "drop")
    keep, _ = settlement.settle(items)
    assert keep.tolist() == [False, True, True, True]
    (report,) = settlement.reports
    assert report.to_json()["rejects"] == {"equal to another item": 1}
    assert report.found == {"equal to an item of another label": 1}


def test_near_duplicates_come_to_one_split_and_move_nothing_else():
    items = index(*free(200))
    alone = Settlement(RATIO).settle(items)[1]
    pairs = [(n, n + 100) for n in range(50)]
    settlement = Settlement(RATIO, near_duplicates="keep")
    keep, codes = settlement.settle(items, lambda: Pairs(*pairs))
    assert keep.all()
    assert (codes[:50] == codes[100:150]).all()
    assert (alone[:50] != alone[100:150]).any()
    assert (codes[50:100] == alone[50:100]).all()
    assert settlement.reports[-1].found == {"groups": 50, "items": 100, "largest": 2}


def test_a_group_goes_where_the_data_put_one_of_its_items():
    items = index(*free(20), (b"stated", None, TEST), (b"other", None, VALIDATION))
    settlement = Settlement(RATIO, near_duplicates="keep")
    _, codes = settlement.settle(items, lambda: Pairs((3, 20), (4, 3), (7, 21)))
    assert codes[[3, 4, 20]].tolist() == [TEST] * 3
    assert codes[[7, 21]].tolist() == [VALIDATION] * 2
    assert settlement.stated == {VALIDATION, TEST}


def test_of_near_duplicates_one_stays_where_that_is_asked_for():
    items = index(*free(6), (b"stated", None, TEST))
    keep, codes = Settlement(RATIO, near_duplicates="drop").settle(
        items, lambda: Pairs((0, 1), (2, 6))
    )
    assert keep.tolist() == [True, False, False, True, True, True, True]
    assert len(codes) == 5


def test_an_update_keeps_the_splits_of_old_items_and_gives_no_new_ones_to_a_stated_split(parent):
    old = [(b"x", None, TRAIN), (b"y", None, TRAIN), (b"z", None, TEST)]
    settlement = Settlement(RATIO, "keep", "keep", parent=parent)
    items = index(*old, (b"y", None, UNASSIGNED), *free(50), inherited=3)
    keep, codes = settlement.settle(items, lambda: Pairs((2, 10)))
    assert np.flatnonzero(~keep).tolist() == [3]  # equal to an old one
    assert codes[:3].tolist() == [TRAIN, TRAIN, TEST]
    assert np.flatnonzero(codes == TEST).tolist() == [2, 9]  # item 10 follows item 2


def test_old_items_stay_though_they_are_equal(parent):
    old = [(b"x", None, TRAIN), (b"x", None, TRAIN), (b"z", None, TEST)]
    items = index(*old, *free(5), inherited=3)
    keep, _ = Settlement(RATIO, "drop", parent=parent).settle(items)
    assert keep.all()
