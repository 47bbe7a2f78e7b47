"""Labels and splits from the names of folders and files."""

from functools import partial

import pytest

from db.errors import BadInput
from worker.data.dataset import TEST, VALIDATION
from worker.data.split import UNASSIGNED
from worker.media.sources.layout import Layout, Names
from worker.source_files.folders import open_file
from worker.source_files.members import Member

TRAIN = UNASSIGNED


def member(name: str) -> Member:
    return Member(name, partial(open_file, None))


def layout_of(names: list[str], **options: bool) -> Layout:
    found = Names()
    for name in names:
        found.add(member(name))
    return found.layout(**options)


def read(names: list[str], **options: bool) -> list[tuple[str | None, int]]:
    layout = layout_of(names, **options)
    return [layout.read(member(name)) for name in names]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train/cat/1", "val/cat/2"], [("cat", TRAIN), ("cat", VALIDATION)]),
        (["train/cat/1", "dev/cat/2"], [("cat", TRAIN), ("cat", VALIDATION)]),
        (["Train/cat/1", "Validation/dog/2"], [("cat", TRAIN), ("dog", VALIDATION)]),
        (["training/a/1", "testing/b/2"], [("a", TRAIN), ("b", TEST)]),
        (["train2017/1", "val2017/2"], [(None, TRAIN), (None, VALIDATION)]),
        (["train_set/a/1", "test_set/a/2"], [("a", TRAIN), ("a", TEST)]),
        (["training-images/a/1", "test-images/a/2"], [("a", TRAIN), ("a", TEST)]),
        (["set/images/train/a/1", "set/images/test/b/2"], [("a", TRAIN), ("b", TEST)]),
        (["train/images/1", "valid/images/2"], [(None, TRAIN), (None, VALIDATION)]),
        (["train/train/a/1", "test/test/b/2"], [("a", TRAIN), ("b", TEST)]),
        (["cat/train/1", "dog/train/2", "cat/test/3"],
         [("cat", TRAIN), ("dog", TRAIN), ("cat", TEST)]),
        (["train/1", "test/2", "3"], [(None, TRAIN), (None, TEST), (None, TRAIN)]),
        (["train_001", "train_002", "test_001"], [(None, TRAIN), (None, TRAIN), (None, TEST)]),
        (["train", "validation", "test"], [(None, TRAIN), (None, VALIDATION), (None, TEST)]),
        (["wiki.train", "wiki.valid", "wiki.test"],
         [(None, TRAIN), (None, VALIDATION), (None, TEST)]),
        (["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"],
         [(None, TRAIN), (None, TRAIN), (None, TEST)]),
        (["cat/train_1", "dog/test_1"], [("cat", TRAIN), ("dog", TEST)]),
        (["cat/1", "dog/2"], [("cat", TRAIN), ("dog", TRAIN)]),
        (["a/b/cat/1", "a/b/dog/2"], [("cat", TRAIN), ("dog", TRAIN)]),
        (["train/1", "train/2"], [(None, TRAIN), (None, TRAIN)]),
        (["1", "2"], [(None, TRAIN), (None, TRAIN)]),
    ],
)  # fmt: skip
def test_folders_and_names_mean_what_people_mean(names, expected):
    names = [f"{name}.txt" for name in names]
    assert read(names) == expected


def test_folders_that_only_begin_like_splits_are_labels():
    names = ["trains/1.png", "testers/2.png", "values/3.png"]
    assert [label for label, _ in read(names)] == ["trains", "testers", "values"]
    mixed = layout_of(["train/1.png", "test/2.png", "extra/3.png"])
    assert mixed.labels == ("extra", "test", "train")
    assert mixed.describe_splits() == "from the items' content; test, train was taken as a label"


def test_a_file_beside_the_labels_is_refused_and_one_beside_the_splits_is_not():
    layout = layout_of(["train/cat/1.png", "test/cat/2.png"])
    with pytest.raises(BadInput, match="in none of them"):
        layout.read(member("3.png"))


def test_the_beginnings_of_names_are_labels_unless_they_are_splits():
    digits = [f"{digit}_{take}.wav" for digit in "01" for take in "ab"]
    assert [label for label, _ in read(digits, named_labels=True)] == ["0", "0", "1", "1"]
    splits = [f"{split}_{take}.wav" for split in ("train", "test") for take in "ab"]
    assert read(splits, named_labels=True) == [(None, TRAIN)] * 2 + [(None, TEST)] * 2


def test_what_was_read_is_said_in_words():
    layout = layout_of(["train/Cat/1.png", "train/cat/2.png", "test/dog/3.png"])
    assert layout.describe_labels() == (
        "Cat, cat, dog, from the names of folders; some differ only by case (cat)"
    )
    assert layout.describe_splits() == "from the names of folders"
    many = layout_of([f"{n}/1.png" for n in range(20)])
    assert many.describe_labels().startswith("0, 1, 2, 3, 4, 5, 6, 7, ... (20), from")
    assert layout_of(["1.png"]).describe_labels() == "none"


def test_too_many_labels_are_refused(monkeypatch):
    monkeypatch.setattr("worker.media.sources.layout.MAX_LABELS", 3)
    with pytest.raises(BadInput, match="4 folders, and so labels; use at most 3"):
        layout_of([f"{n}/1.png" for n in range(4)])
