"""The index of an object's samples: fixed-width entries, found by number."""

import hashlib

import pytest

from db.errors import BadInput, GenmillError
from worker.media.samples.index import IndexEntry, SampleIndex


def entry(sample, offset=0, size=1):
    return IndexEntry(sample, offset, size, hashlib.sha256(str(sample).encode()).hexdigest())


def test_entries_are_read_as_they_were_written():
    entries = [entry(7, 512, 1000), entry(8, 2048, 2**32 - 1), entry(9, 2**40, 0)]
    index = SampleIndex.of(entries)
    assert list(index) == entries
    assert (len(index), index.samples, len(index.data)) == (3, range(7, 10), 3 * 44)
    assert SampleIndex.decode(index.data, range(7, 10)) == index
    assert [index.entry(number) for number in (9, 7)] == [entries[2], entries[0]]


def test_entries_are_ordered_by_number_whatever_their_order_in_the_object():
    index = SampleIndex.of([entry(4, 10), entry(3, 20), entry(5, 0)])
    assert [(each.sample, each.offset) for each in index] == [(3, 20), (4, 10), (5, 0)]


@pytest.mark.parametrize("numbers", [(1, 3), (1, 1)])
def test_a_number_that_is_missing_or_repeated_is_refused(numbers):
    with pytest.raises(GenmillError, match="follow one another"):
        SampleIndex.of(entry(number) for number in numbers)


def test_an_index_of_another_length_is_refused():
    with pytest.raises(BadInput, match="43 bytes is not one of 1 samples"):
        SampleIndex.decode(bytes(43), range(1))


def test_a_sample_outside_of_the_index_has_no_entry():
    with pytest.raises(ValueError, match="not in range"):
        SampleIndex.of([entry(3)]).entry(4)


def test_the_digest_for_the_manifest_is_over_lines_of_number_and_digest():
    lines = "".join(f"{each.sample} {each.sha256}\n" for each in (entry(3), entry(4)))
    index = SampleIndex.of([entry(3), entry(4)])
    assert index.members_sha256 == hashlib.sha256(lines.encode()).hexdigest()
