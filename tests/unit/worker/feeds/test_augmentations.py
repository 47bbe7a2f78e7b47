"""Declared augmentations: what each changes, from numbers that are arguments."""

import numpy as np
import pytest

from tests.families.kit import image_dataset, sound_dataset
from worker.feeds.augmentations import IMAGES, augment_images, augment_sound
from worker.feeds.images import ImageFeed
from worker.feeds.sounds import SoundFeed, SoundStatistics
from worker.files import canonical_json


def generator(seed=0):
    return np.random.Generator(np.random.Philox(key=[seed, 0]))


@pytest.fixture
def images():
    numbers = generator(5).random((64, 3, 12, 12))
    return (numbers * 1.6 - 0.8).astype(np.float32)


def declare(dataset, **augmentations):
    dataset.manifest["augmentations"] = augmentations
    (dataset.folder / "manifest.json").write_bytes(canonical_json(dataset.manifest))
    return dataset


def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_others(images):
    flipped = augment_images(images, {"flip": 1}, generator())
    mirrored = (flipped == images[..., ::-1]).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert 20 < mirrored.sum() < 44


def test_a_shift_moves_whole_pixels_and_repeats_the_edge(images):
    shifted = augment_images(images, {"shift": 2}, generator())
    moves = set()
    for image, moved in zip(images, shifted, strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="edge")
        [at] = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if (padded[:, y : y + 12, x : x + 12] == moved).all()
        ]
        moves.add(at)
    assert len(moves) > 15


def test_a_crop_stays_inside_the_image_and_keeps_its_size(images):
    cropped = augment_images(images, {"crop": 4}, generator())
    assert cropped.shape == images.shape
    assert cropped.dtype == np.float32
    low, high = images.min((2, 3)), images.max((2, 3))
    assert (cropped.min((2, 3)) >= low - 1e-6).all()
    assert (cropped.max((2, 3)) <= high + 1e-6).all()
    assert not (cropped == images).all()
    # a ramp stays a ramp: what is enlarged is not distorted
    ramp = np.broadcast_to(np.linspace(-1, 1, 12, dtype=np.float32), (8, 1, 12, 12)).copy()
    steps = np.diff(augment_images(ramp, {"crop": 4}, generator())[:, 0, 0, 1:-1])
    np.testing.assert_allclose(steps, np.repeat(steps[:, :1], 9, axis=1), atol=1e-5)


def test_colours_change_within_the_range(images):
    changed = augment_images(images, {"colour": 0.3}, generator())
    assert changed.dtype == np.float32
    assert np.abs(changed).max() <= 1
    assert np.abs(changed.mean((1, 2, 3)) - images.mean((1, 2, 3))).max() > 0.1
    assert np.abs(changed.mean((1, 2, 3)) - images.mean((1, 2, 3))).max() < 0.5


@pytest.mark.parametrize("side", [1, 4, 5])
def test_a_cutout_is_a_grey_square_that_may_leave_the_image(images, side):
    cut = augment_images(images, {"cutout": side}, generator())
    holes = (cut != images).any(1).sum((1, 2))
    assert holes.max() == side**2
    assert (cut[np.broadcast_to((cut != images), cut.shape)] == 0).all()


@pytest.mark.parametrize("name", IMAGES)
def test_an_augmentation_draws_the_same_whatever_else_is_declared(images, name):
    """And strength 0 changes nothing."""
    alone = augment_images(images, {name: 2}, generator())
    zeros = dict.fromkeys(IMAGES, 0.0) | {name: 2}
    np.testing.assert_array_equal(augment_images(images, zeros, generator()), alone)
    assert not (alone == images).all()


def test_training_batches_are_augmented_and_validation_is_not(tmp_path):
    plain = image_dataset(tmp_path / "plain")
    feed = ImageFeed(plain, batch_size=8, seed=3)
    before, validation = feed.train(5)[0], [each[0] for each in feed.validation()]
    declare(plain, shift=1, flip=1)
    changed = ImageFeed(plain, batch_size=8, seed=3)
    again = ImageFeed(plain, batch_size=8, seed=3)
    assert not (changed.train(5)[0] == before).all()
    np.testing.assert_array_equal(changed.train(5)[0], again.train(5)[0])
    assert not (changed.train(5)[0] == changed.train(6)[0]).all()
    for one, other in zip(validation, changed.validation(), strict=True):
        np.testing.assert_array_equal(one, other[0])


def test_a_sound_keeps_its_length_and_changes_as_declared():
    sound = (np.sin(np.arange(4000) / 10) * 8000).astype(np.int16)
    louder = augment_sound(sound, {"gain": 6}, generator(1), rate=8000)
    ratio = np.abs(louder).max() / np.abs(sound).max()
    assert 0.5 < ratio < 2
    assert ratio != 1
    noisy = augment_sound(sound, {"noise": 0.01}, generator(1), rate=8000)
    assert (noisy - sound.astype(int)).std() == pytest.approx(0.01 * 2**15, rel=0.1)
    moved = augment_sound(sound, {"time-shift": 0.1}, generator(1), rate=8000)
    shift = next(
        each
        for each in range(-800, 801)
        if (
            moved[max(each, 0) : 4000 + min(each, 0)] == sound[max(-each, 0) : 4000 - max(each, 0)]
        ).all()
    )
    assert shift != 0
    assert not moved[: max(shift, 0)].any()
    assert not moved[4000 + min(shift, 0) :].any()
    assert len(louder) == len(noisy) == len(moved) == len(sound)


def test_loud_sounds_are_clipped_not_wrapped():
    sound = np.full(100, 32000, np.int16)
    assert augment_sound(sound, {"noise": 0.5}, generator(), rate=8000).max() == 32767
    assert augment_sound(sound, {"gain": 20}, generator(1), rate=8000).min() > 0


def test_windows_of_a_sound_agree_within_an_epoch_and_differ_between_epochs(tmp_path):
    dataset = sound_dataset(tmp_path / "sounds")
    sizes = {"receptive": 8, "context": 32, "batch_size": 8, "seed": 3}
    before = SoundFeed(dataset, SoundStatistics(0.1, 20), **sizes)
    declare(dataset, noise=0.01, gain=3)
    feed = SoundFeed(dataset, SoundStatistics(0.1, 20), **sizes)
    again = SoundFeed(dataset, SoundStatistics(0.1, 20), **sizes)
    np.testing.assert_array_equal(feed.train(1)[0], again.train(1)[0])
    assert not (feed.train(1)[0] == before.train(1)[0]).all()
    assert not (feed._augmented(0, 1) == feed._augmented(1, 1)).all()
    np.testing.assert_array_equal(feed._augmented(1, 1), again._augmented(1, 1))
    for one, other in zip(before.validation(), feed.validation(), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
