"""Near-duplicates that are planted are found, and little else."""

import json
import random

import numpy as np
import pytest
from PIL import Image

from tests.planted import altered_image, altered_sound, altered_text, judged, moved
from worker.cleaning.alike import groups as alike
from worker.cleaning.alike.groups import Groups, find_groups, near_pairs
from worker.cleaning.alike.images import AlikeImages, perceptual_hashes
from worker.cleaning.alike.sounds import AlikeSounds
from worker.cleaning.alike.texts import AlikeTexts
from worker.data.dataset import LocalDataset
from worker.ingest.ingest import ingest


def drawings(count: int, side: int = 28) -> np.ndarray:
    """Smooth random pictures, each unlike the others."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (count, 7, 7), np.uint8)
    size = (side, side)
    big = [
        np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BICUBIC)) for each in small
    ]
    return np.stack(big)[..., None]


def test_the_hash_is_that_of_imagehash():
    imagehash = pytest.importorskip("imagehash")
    images = drawings(50, 32)
    ours = [f"{int(each):016x}" for each in perceptual_hashes(images)[0]]
    pictures = [Image.fromarray(each[..., 0]) for each in images]
    assert ours == [str(imagehash.phash(each)) for each in pictures]


def test_moved_and_encoded_pictures_are_found_and_no_others():
    images = drawings(300)
    copies = np.stack([altered_image(images[n], n) for n in range(96)])
    both = np.concatenate([images, copies])
    found = judged(find_groups(AlikeImages(both), len(both)).names(), np.arange(96), 300)
    assert found.recall >= 0.95
    assert found.strangers == 0


def test_a_chain_of_small_changes_is_one_group():
    one = drawings(1)[0]
    images = np.stack([one, moved(one, (0, 1)), moved(moved(one, (0, 1)), (0, 1))])
    assert find_groups(AlikeImages(images), 3).names().tolist() == [0, 0, 0]


def test_keys_that_differ_by_less_than_a_bit_a_band_are_always_found():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**63, 1000, np.uint64)
    near = keys.copy()
    for _ in range(3):
        near ^= np.uint64(1) << rng.integers(0, 64, 1000).astype(np.uint64)
    found = np.concatenate(list(near_pairs(np.concatenate([keys, near]), keys, bits=3)))
    pairs = {tuple(pair) for pair in found.tolist()}
    assert all((1000 + n, n) in pairs for n in range(1000))


def test_many_equal_keys_take_a_bounded_number_of_comparisons():
    keys = np.zeros(5000, np.uint64)
    count = sum(len(pairs) for pairs in alike.equal_pairs(keys))
    assert count <= 5000 * alike.WINDOW


def test_groups_join_across_pairs():
    groups = Groups(6)
    groups.join(np.array([[4, 5], [1, 2], [2, 4]]))
    assert groups.names().tolist() == [0, 1, 1, 3, 1, 1]


def test_a_changed_word_is_found_and_another_text_is_not(tmp_path):
    chance = random.Random(0)
    words = [
        f"{a}{b}" for a in ("ba", "ke", "li", "mo", "nu", "so") for b in ("ra", "ti", "no", "vel")
    ]
    texts = [" ".join(chance.choices(words, k=30)) for _ in range(100)]
    copies = [altered_text(text, chance, words) for text in texts[:50]]
    path = tmp_path / "rows"
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts + copies))
    found = judged(find_groups(AlikeTexts(path, 150), 150).names(), np.arange(50), 100)
    assert found.recall >= 0.95
    assert found.strangers == 0


def test_texts_without_spaces_and_short_ones_are_compared_too(tmp_path):
    rows = [
        "春眠不觉晓、处处闻啼鸟。夜来风雨声、花落知多少。",
        "春眠不觉晓、处处闻啼鸟。夜来风雨声、花落知多少",
        "ab",
        "AB ",
        "cd",
    ]
    path = tmp_path / "rows"
    path.write_text("".join(json.dumps({"text": each}) + "\n" for each in rows))
    assert find_groups(AlikeTexts(path, 5), 5).names().tolist() == [0, 0, 2, 2, 4]


def test_a_sound_is_found_louder_shorter_noisy_and_encoded():
    rng = np.random.default_rng(0)
    sounds = []
    for _ in range(40):
        pitches = rng.uniform(200, 2000, 6)
        tune = np.concatenate([np.sin(2 * np.pi * f * np.arange(700) / 8000) for f in pitches])
        sounds.append((tune * rng.uniform(3000, 20000)).astype(np.int16))
    copies = [altered_sound(sounds[n], n, 8000) for n in range(20)]
    ends = np.concatenate([[0], np.cumsum([len(each) for each in sounds + copies])])
    groups = find_groups(AlikeSounds(np.concatenate(sounds + copies), ends), 60).names()
    found = judged(groups, np.arange(20), 40)
    assert found.recall >= 0.9
    assert found.strangers == 0


def test_copies_planted_in_mnist_are_on_their_originals_side(shared_data, tmp_path):
    from tests.unit.worker.ingest.test_ingest_images import idx
    from worker.cleaning.recipe import Recipe

    ingest(shared_data / "mnist", tmp_path / "all")
    images = LocalDataset(tmp_path / "all").array("images")[:3000]
    copies = np.stack([altered_image(images[n], n) for n in range(300)])
    (tmp_path / "planted").write_bytes(idx(np.concatenate([images, copies])[..., 0]))
    recipe = Recipe(near_duplicates="keep", split=(50, 25, 25))
    ingest(tmp_path / "planted", tmp_path / "out", recipe)
    split = LocalDataset(tmp_path / "out").array("split")
    assert (split[:300] == split[3000:]).mean() >= 0.99
