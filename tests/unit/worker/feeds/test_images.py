"""Batches of images."""

from pathlib import Path

import numpy as np
import pytest

from db.errors import BadInput
from worker.cleaning.settle import Settlement
from worker.data.dataset import TRAIN, VALIDATION, LocalDataset
from worker.data.split import UNASSIGNED
from worker.feeds.images import ImageFeed
from worker.files import canonical_json
from worker.ingest.ingest import ingest
from worker.media.image import write_images
from worker.media.sources.image_files import ImageItem


@pytest.fixture
def dataset(tmp_path: Path) -> LocalDataset:
    """100 images of 4x4x3; the first byte of each is its number, its label that modulo 3."""
    items = (
        ImageItem(
            np.full((4, 4, 3), number, np.uint8),
            number % 3,
            UNASSIGNED if number < 80 else VALIDATION,
        )
        for number in range(100)
    )
    shape, _ = write_images(items, tmp_path, Settlement((90, 5, 5)), labels=("a", "b", "c"))
    manifest = {"kind": "image", "shape": shape.to_json()}
    (tmp_path / "manifest.json").write_bytes(canonical_json(manifest))
    return LocalDataset(tmp_path)


def numbers(data: np.ndarray) -> list[int]:
    return np.rint((data[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()


def test_a_batch_is_channels_first_between_minus_one_and_one_with_its_labels(dataset):
    feed = ImageFeed(dataset, batch_size=16, seed=3)
    data, labels = feed.train(0)
    assert (data.shape, data.dtype) == ((16, 3, 4, 4), np.float32)
    assert data.min() >= -1
    assert data.max() <= 1
    assert labels.dtype == np.int64
    assert [number % 3 for number in numbers(data)] == labels.tolist()


def test_the_ends_of_the_scale_are_exact(tmp_path):
    items = (ImageItem(np.full((2, 2, 1), value, np.uint8), None, UNASSIGNED) for value in (0, 255))
    shape, _ = write_images(items, tmp_path, Settlement((1, 0, 0)), labels=())
    (tmp_path / "manifest.json").write_bytes(
        canonical_json({"kind": "image", "shape": shape.to_json()})
    )
    data, labels = ImageFeed(LocalDataset(tmp_path), batch_size=2, seed=0).train(0)
    assert {data.min(), data.max()} == {-1.0, 1.0}
    assert labels is None


def test_an_epoch_shows_every_training_image_once(dataset):
    feed = ImageFeed(dataset, batch_size=7, seed=3)
    count = feed.train_count
    shown = [number for step in range(count) for number in numbers(feed.train(step)[0])]
    train = np.flatnonzero(dataset.array("split") == TRAIN).tolist()
    epochs = [shown[first : first + count] for first in range(0, 7 * count, count)]
    assert all(sorted(epoch) == train for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_step_gives_the_same_batch_whenever_it_is_asked_for(dataset):
    one, two = (ImageFeed(dataset, batch_size=16, seed=3) for _ in range(2))
    for step in (40, 0, 39, 5):
        one.train(step)
    assert numbers(one.train(12)[0]) == numbers(two.train(12)[0])


def test_another_seed_gives_another_order(dataset):
    one, two = (ImageFeed(dataset, batch_size=64, seed=seed) for seed in (3, 4))
    assert numbers(one.train(0)[0]) != numbers(two.train(0)[0])


def test_a_batch_may_be_larger_than_the_data(dataset):
    assert len(ImageFeed(dataset, batch_size=500, seed=0).train(3)[0]) == 500


def test_validation_shows_every_held_out_image_once_in_order(dataset):
    feed = ImageFeed(dataset, batch_size=8, seed=3)
    shown = [number for data, _ in feed.validation() for number in numbers(data)]
    assert shown == np.flatnonzero(dataset.array("split") == VALIDATION).tolist()
    assert shown == [number for data, _ in feed.validation() for number in numbers(data)]


def test_text_is_not_taken_for_images(tmp_path):
    (tmp_path / "a.txt").write_text("some words")
    ingest(tmp_path / "a.txt", tmp_path / "out")
    with pytest.raises(BadInput, match="of kind text"):
        ImageFeed(LocalDataset(tmp_path / "out"), batch_size=1, seed=0)
