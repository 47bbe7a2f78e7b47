"""What a page of samples shows of a training that went wrong."""

import numpy as np
import pytest

from tests.families.kit import SENTENCES, image_dataset, sound_dataset, text_dataset
from worker.data.dataset import Shape
from worker.media import find_medium
from worker.media.faults.pictures import picture_faults
from worker.media.faults.texts import text_faults

DRAW = np.random.default_rng(0)


@pytest.fixture(scope="module")
def blobs():
    """Pictures of a soft spot at random places: 100 in turn for training, held out, and made."""
    y, x = np.mgrid[:16, :16]

    def picture():
        top, left = DRAW.uniform(2, 14, 2)
        spot = np.exp(-((x - left) ** 2 + (y - top) ** 2) / 8)
        return (255 * spot).astype(np.uint8)[..., None]

    return [np.stack([picture() for _ in range(100)]) for _ in range(3)]


def test_good_pictures_have_no_fault(blobs):
    train, held_out, made = blobs
    assert picture_faults(made, held_out, train) == []


def test_noise_is_named(blobs):
    train, held_out, _ = blobs
    noise = DRAW.integers(0, 256, held_out.shape).astype(np.uint8)
    [fault] = picture_faults(noise, held_out, train)
    assert "are like noise" in fault


@pytest.mark.parametrize("modes", [1, 5])
def test_collapse_is_named_also_within_classes(blobs, modes):
    train, held_out, made = blobs
    few = made[:modes].repeat(100 // modes, 0)
    few = np.clip(few + DRAW.integers(0, 3, few.shape), 0, 255).astype(np.uint8)
    [fault] = picture_faults(few, held_out, train)
    assert "hardly differ" in fault


def test_copies_of_training_pictures_are_named(blobs):
    train, held_out, made = blobs
    copied = np.concatenate([train[:50], made[:50]])
    [fault] = picture_faults(copied, held_out, train)
    assert fault.endswith("% of 100 samples are near-copies of training items")


def test_too_few_pictures_tell_nothing(blobs):
    train, held_out, _ = blobs
    assert picture_faults(np.zeros((7, 16, 16, 1), np.uint8), held_out, train) == []
    assert picture_faults(np.zeros((9, 16, 16, 1), np.uint8), held_out[:7], train) == []


def test_the_medium_compares_with_its_own_data(tmp_path):
    pictures = image_dataset(tmp_path / "pictures")
    blank = [np.zeros((12, 12, 1), np.uint8)] * 40
    found = find_medium("image").faults(blank, pictures, pictures.shape("image"), tuned=False)
    assert "hardly differ" in found[0]
    sounds = sound_dataset(tmp_path / "sounds")
    noise = [DRAW.uniform(-1, 1, 100).astype(np.float32) for _ in range(20)]
    shape = sounds.shape("audio")
    assert "are like noise" in find_medium("audio").faults(noise, sounds, shape, tuned=False)[0]


TRAIN, HELD_OUT = SENTENCES[::2], SENTENCES[1::2]


def faults(made, *, tuned=False):
    return text_faults(made, HELD_OUT, TRAIN, tuned=tuned)


def test_good_texts_have_no_fault():
    made = ["".join(HELD_OUT[place : place + 4]) for place in range(0, 16, 4)]
    assert faults(made) == []


def test_noise_in_texts_is_named_but_not_of_a_network_that_was_tuned():
    letters = list("abcdefghijklmnop .")
    noise = ["".join(DRAW.choice(letters, 120)) for _ in range(8)]
    [fault] = faults(noise)
    assert "are like noise" in fault
    assert faults(noise, tuned=True) == []


@pytest.mark.parametrize("made", [["the cat the cat " * 10] * 8, ["a" * 100] * 8])
def test_texts_that_repeat_are_named(made):
    [fault] = faults(made)
    assert "repeat themselves or one another" in fault


def test_empty_texts_are_named():
    assert faults(["", " ", "\n", "a text"]) == [
        "at least half of the 4 texts that were looked at are empty"
    ]


def test_copied_passages_are_named():
    real = [f"{first} {second}. " for first in range(100, 140) for second in range(500, 503)]
    train, held_out = "".join(real), "".join(reversed(real))
    made = [train[place : place + 200] for place in range(0, 800, 200)]
    [fault] = text_faults(made, [held_out], [train], tuned=False)
    assert "of the passages of 4 texts are copies of training text" in fault


def test_the_medium_reads_what_a_model_learns_to_write(tmp_path):
    texts = text_dataset(tmp_path / "texts")
    made = ["".join(SENTENCES[place::7])[:80] for place in range(6)]
    medium = find_medium("text")
    assert medium.faults(made, texts, Shape("text"), tuned=False) == []
    assert medium.faults(["x9 q" * 30] * 6, texts, Shape("text"), tuned=True) != []
