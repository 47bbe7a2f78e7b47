"""Publishing: how much of what is published is in memory at once."""

import pytest

from worker.shards.publish import chunks


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ([1, 1, 1, 1, 1], [[1, 1, 1], [1, 1]]),
        ([6, 5, 5, 1], [[6], [5, 5], [1]]),
        ([30, 40, 1, 1], [[30], [40], [1, 1]]),
        ([], []),
    ],
)
def test_what_is_held_at_once_is_limited_by_number_and_size(sizes, found):
    assert list(chunks(sizes, 3, lambda size: size, at_once=10)) == found
