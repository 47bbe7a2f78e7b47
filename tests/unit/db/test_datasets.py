"""Datasets, their versions, and what a reference means."""

import pytest

from db import datasets
from db.errors import NotFound, Refused


def add(record, digest="a", name="mnist"):
    sha256 = digest * 64
    key = f"datasets/blobs/{sha256}"
    return record.run(
        datasets.add_version,
        name=name,
        kind="image",
        manifest_key=key,
        manifest_sha256=sha256,
        summary={"counts": {"train": 3}},
    )


def number(record, reference):
    return record.run(datasets.resolve, reference)[1].number


def test_other_content_is_another_version(record):
    assert [add(record, digest).number for digest in "abc"] == [1, 2, 3]
    assert number(record, "mnist") == 3
    assert number(record, "mnist:2") == 2


def test_the_same_content_is_the_same_version(record):
    assert add(record).id == add(record).id
    assert add(record, name="copy").number == 1


def test_a_removed_version_is_not_found_and_its_number_not_used_again(record):
    add(record, "a")
    add(record, "b")
    assert [version.number for version in record.run(datasets.remove, "mnist:2")] == [2]
    assert number(record, "mnist") == 1
    with pytest.raises(NotFound, match="known: 1"):
        record.run(datasets.resolve, "mnist:2")
    assert add(record, "c").number == 3


def test_removing_a_name_removes_all_its_versions(record):
    first = add(record, "a")
    add(record, "b")
    assert len(record.run(datasets.remove, "mnist")) == 2
    assert record.run(datasets.listing) == []
    assert record.run(datasets.version, first.id).removed_at is not None
    with pytest.raises(NotFound):
        record.run(datasets.resolve, "mnist")


def test_adding_removed_content_brings_it_back(record):
    first = add(record)
    record.run(datasets.remove, "mnist")
    assert add(record).id == first.id
    assert number(record, "mnist") == 1


def test_a_dataset_in_use_is_not_removed(record):
    add(record)
    job_id, _ = record.add((0, 1), kind="train", spec={"dataset": "mnist:1"})
    with pytest.raises(Refused, match=job_id):
        record.run(datasets.remove, "mnist")
    record.cancel(job_id)
    assert len(record.run(datasets.remove, "mnist")) == 1


def test_manifests_in_use_are_those_not_removed(record):
    kept = add(record, "a")
    add(record, "b", name="other")
    record.run(datasets.remove, "other")
    assert record.run(datasets.manifests_in_use) == {kept.manifest_key}


def test_a_dataset_has_no_aliases(record):
    add(record)
    with pytest.raises(NotFound, match="no dataset 'mnist@latest': datasets have no aliases"):
        record.run(datasets.resolve, "mnist@latest")


def test_an_unknown_dataset_gets_the_nearest_spelling(record):
    add(record)
    with pytest.raises(NotFound, match="did you mean 'mnist'"):
        record.run(datasets.resolve, "mnits")
    with pytest.raises(NotFound):
        record.run(datasets.version, "nope")
