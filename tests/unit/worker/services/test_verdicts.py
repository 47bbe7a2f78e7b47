"""Which samples an order accepts: a function of their numbers alone."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.errors import DigestMismatch
from worker.services.verdicts import CONFIDENCE, COPY, DUPLICATE, PASSED, Verdicts, select

RADIUS = 0.01


def part(start, codes, signatures=None):
    signatures = np.zeros((len(codes), 0)) if signatures is None else np.asarray(signatures)
    return Verdicts(
        start,
        np.asarray(codes, np.uint8),
        np.arange(len(codes), dtype=np.float32),
        signatures.astype(np.float32),
        RADIUS,
    )


def cut(whole, places):
    """The same verdicts in several parts."""
    ends = sorted({0, *places, len(whole.codes)})
    return [
        Verdicts(a, whole.codes[a:b], whole.values[a:b], whole.signatures[a:b], RADIUS)
        for a, b in pairwise(ends)
    ]


def test_the_first_accepted_ones_are_taken_up_to_the_number_wanted():
    selection = select([part(0, [0, 1, 0]), part(3, [0, 0, 3])], 3)
    assert selection.accepted.tolist() == [0, 2, 3]
    assert selection.codes.tolist() == [0, 1, 0, 0]
    assert dict(selection.rejected) == {"confidence": 1}


def test_too_few_are_all_that_there_are():
    selection = select([part(0, [0, 1, COPY])], 3)
    assert selection.accepted.tolist() == [0]
    assert dict(selection.rejected) == {"confidence": 1, "copies_of_training": 1}


def test_of_near_duplicates_the_first_accepted_one_stays():
    """Also of such as resemble a rejected one: that is not delivered."""
    signatures = [[0, 0], [0.05, 0], [1, 0], [1.05, 0], [5, 5]]
    selection = select([part(0, [PASSED, PASSED, CONFIDENCE, PASSED, PASSED], signatures)], 9)
    assert selection.codes.tolist() == [PASSED, DUPLICATE, CONFIDENCE, PASSED, PASSED]


def test_near_duplicates_are_found_across_blocks_and_parts():
    random = np.random.default_rng(0)
    far = random.normal(size=(1500, 8)) * 10
    again = far[[3, 700, 1400]] + 0.01
    parts = [part(0, [PASSED] * 1500, far), part(1500, [PASSED] * 3, again)]
    assert select(parts, 2000).codes[1500:].tolist() == [DUPLICATE] * 3


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 3]), st.integers(0, 6)), min_size=1),
    st.lists(st.integers(0, 40), max_size=6),
    st.integers(1, 30),
)
def test_the_selection_is_the_same_however_the_order_is_cut(samples, places, wanted):
    codes, places_of = zip(*samples, strict=True)
    whole = part(0, codes, [[float(place)] for place in places_of])
    one = select([whole], wanted)
    several = select(cut(whole, [p for p in places if p < len(codes)]), wanted)
    assert one.codes.tolist() == several.codes.tolist()
    assert list(one.lines()) == list(several.lines())
    chosen = [places_of[index] for index in one.accepted]
    assert len(chosen) == len(set(chosen)) <= wanted


def test_a_missing_part_is_an_error():
    with pytest.raises(DigestMismatch, match="from sample 5, not 2"):
        select([part(0, [0, 0]), part(5, [0])], 9)


def test_verdicts_are_stored_and_read_back_and_equal_ones_are_equal_bytes():
    one = part(7, [0, 1, 2], np.random.default_rng(0).normal(size=(3, 4)))
    data = one.encode()
    assert data == part(7, [0, 1, 2], one.signatures).encode()
    back = Verdicts.decode(data)
    assert (back.start, back.radius) == (7, RADIUS)
    np.testing.assert_array_equal(back.signatures, one.signatures)
    for damaged in (b"", data[:50], b"PK" + data[2:60]):
        with pytest.raises(DigestMismatch):
            Verdicts.decode(damaged)


def test_each_sample_has_a_line_that_says_why():
    lines = [json.loads(line) for line in select([part(0, [1, 0])], 1).lines()]
    assert lines == [
        {"index": 0, "accepted": False, "rule": "confidence", "value": 0.0},
        {"index": 1, "accepted": True},
    ]
