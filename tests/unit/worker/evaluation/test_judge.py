"""The judge: deterministic, better than chance, and the same after it was stored."""

import numpy as np
import pytest
import torch

from db.errors import NotSupportedHere
from worker.engine.tensors import write_tensors
from worker.evaluation import judge, stored_judges
from worker.evaluation.judge import JudgeNetwork

CPU = torch.device("cpu")


def nothing(done, total):
    pass


def stripes(count=256, size=16, channels=1):
    """Upright and level stripes at random places, and which they are."""
    random = np.random.default_rng(3)
    labels = np.arange(count) % 2
    pixels = random.integers(0, 60, (count, size, size, channels), dtype=np.uint8)
    for picture, label, at in zip(pixels, labels, random.integers(0, size, count), strict=True):
        (picture if label else picture.swapaxes(0, 1))[at] = 255
    return pixels, labels.astype(np.int64)


def trained(pixels, labels, *, steps=40):
    classes = 0 if labels is None else 2
    return judge.train(pixels, labels, classes=classes, device=CPU, tick=nothing, steps=steps)


def test_it_learns_the_classes():
    pixels, labels = stripes()
    found = judge.look(trained(pixels, labels), pixels, nothing)
    assert (found.labels == labels).mean() > 0.95
    assert found.features.shape == (256, judge.FEATURES)
    assert np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)


def test_without_labels_it_learns_to_restore_pictures():
    pixels, _ = stripes(size=13, channels=3)
    network = trained(pixels, None, steps=150)
    judge.set_scale(network, pixels)
    assert judge.explained_variance(network, pixels, nothing) > 0.15
    found = judge.look(network, pixels, nothing)
    assert found.probabilities.shape == (256, 0)
    assert found.features.var(axis=0).mean() == pytest.approx(1, rel=1e-3)


def test_equal_data_give_equal_weights_whatever_the_number_of_threads():
    pixels, labels = stripes()
    torch.manual_seed(1)
    first = trained(pixels, labels, steps=5).state_dict()
    threads = torch.get_num_threads()
    torch.manual_seed(2)
    torch.set_num_threads(threads % 2 + 1)
    try:
        second = trained(pixels, labels, steps=5).state_dict()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_picture_is_judged_alike_among_others_and_alone():
    pixels, labels = stripes()
    network = trained(pixels, labels, steps=5)
    together, alone = (
        judge.look(network, pixels, nothing),
        judge.look(network, pixels[7:8], nothing),
    )
    assert np.array_equal(together.features[7:8], alone.features)


def test_it_is_the_same_after_it_was_stored(tmp_path):
    pixels, labels = stripes()
    network = trained(pixels, labels, steps=5)
    judge.set_scale(network, pixels)
    for name in ("a", "b"):
        judge.save(network, tmp_path / name, height=16, width=16)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    restored = judge.look(stored_judges.load(tmp_path / "a", CPU), pixels, nothing)
    assert np.array_equal(restored.features, judge.look(network, pixels, nothing).features)


@pytest.mark.parametrize("size", [(4, 4), (7, 9), (28, 28), (64, 40)])
@pytest.mark.parametrize("classes", [0, 3])
def test_it_takes_pictures_of_any_size(size, classes):
    network = JudgeNetwork(1, *size, classes).eval()
    pictures = torch.zeros(2, 1, *size)
    features = network.features(pictures)
    assert features.shape == (2, judge.FEATURES)
    assert network.judge(features).shape == ((2, 3) if classes else pictures.shape)


def test_a_judge_of_another_form_is_left_to_the_genmill_that_trained_it(tmp_path):
    path, about = tmp_path / "judge", {"form": [1, 16, 16, 2]}
    for told in (about, {}, {"form": [1]}):
        write_tensors(path, {"trunk.other": torch.zeros(1)}, about=told)
        with pytest.raises(NotSupportedHere, match="another genmill trained the judge"):
            stored_judges.load(path, CPU)
