from pathlib import Path

import numpy as np
import pytest

from tests.families.kit import image_dataset
from worker.data.dataset import TEST, TRAIN, VALIDATION, LocalDataset
from worker.feeds.source_images import SourceImages


def dataset(folder: Path, *codes: int) -> LocalDataset:
    """The 96 pictures of the kit, each third of them in one of the splits."""
    made = image_dataset(folder)
    np.save(folder / "split.npy", np.resize(np.array(codes, dtype=np.uint8), 96))
    return made


@pytest.mark.parametrize(
    ("codes", "first"),
    [((TRAIN, VALIDATION, TEST), 2), ((TRAIN, TRAIN, VALIDATION), 2), ((TRAIN,), 0)],
)
def test_images_are_of_the_split_that_the_network_knows_least(
    codes: tuple[int, ...], first: int, tmp_path: Path
) -> None:
    local = dataset(tmp_path / "d", *codes)
    images = SourceImages(local, ("bar", "disc"))
    assert len(images) == 96 // len(codes)
    pixels, label = images.at(0)
    assert (pixels == local.array("images")[first]).all()
    assert label == local.array("labels")[first]


def test_images_are_taken_in_turn_without_end(tmp_path: Path) -> None:
    images = SourceImages(dataset(tmp_path / "d", TRAIN, TEST), ("bar", "disc"))
    assert (images.at(48 * 3 + 5)[0] == images.at(5)[0]).all()
    assert (images.at(4)[0] != images.at(5)[0]).any()


def test_classes_are_numbered_as_the_network_has_them(tmp_path: Path) -> None:
    local = dataset(tmp_path / "d", TRAIN)
    for known, expected in (
        (("disc", "x", "bar"), [2, 0]),
        (("x",), [None, None]),
        ((), [None] * 2),
    ):
        images = SourceImages(local, known)
        assert [images.at(0)[1], images.at(1)[1]] == expected


def test_images_without_labels_have_no_class(tmp_path: Path) -> None:
    images = SourceImages(image_dataset(tmp_path / "d", labels=()), ("bar",))
    assert images.at(0)[1] is None
