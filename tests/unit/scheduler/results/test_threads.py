"""Working on many objects at once."""

import threading

import pytest

from scheduler.results.threads import in_order


def test_results_come_in_the_order_of_the_items():
    first = threading.Event()

    def work(item):
        if item == 0:
            assert first.wait(10)
        first.set()
        return item * 2

    assert list(in_order(work, range(50), threads=4)) == [item * 2 for item in range(50)]


def test_items_are_read_only_a_few_ahead_of_the_results():
    read = []
    items = (read.append(item) or item for item in range(1000))
    results = in_order(lambda item: item, items, threads=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(read) <= 3 + 2 * 4
    results.close()


def test_an_error_is_raised_in_place_of_its_result_and_ends_the_work():
    begun = []

    def work(item):
        begun.append(item)
        if item == 5:
            raise ValueError("five")
        return item

    results = in_order(work, range(1000), threads=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert len(begun) < 20
