"""Judges on image models that users bring: CLIP, ViT, ResNet and the like, never run as code."""

import json

import numpy as np
import pytest
import torch

from db.errors import BadInput
from tests.evaluating import CPU
from tests.families.image_models import KINDS, save_image_model
from tests.unit.worker.evaluation.test_judge import nothing, stripes
from worker.evaluation import judge, pretrained, stored_judges
from worker.networks.image_model import read_image_model, recipe_of


def fitted(folder, pixels, labels):
    classes = 0 if labels is None else 2
    return pretrained.fit(
        read_image_model(folder), pixels, labels, classes=classes, device=CPU, tick=nothing
    )


@pytest.mark.parametrize("kind", KINDS)
def test_it_tells_classes_apart_and_is_the_same_after_it_was_stored(tmp_path, kind):
    pixels, labels = stripes(count=96)
    network, kept = fitted(save_image_model(tmp_path / kind, kind, size=32), pixels, labels)
    found = judge.look(network, pixels, nothing)
    assert (found.labels == labels).mean() > 0.75
    assert found.features.shape[1] == network.width == min(64, network.form["features"])
    assert found.features.var(axis=0).mean() == pytest.approx(1, rel=1e-3)
    assert np.allclose(found.features.mean(axis=0), 0, atol=1e-3)
    assert 0.9 < kept <= 1
    for name in ("a", "b"):
        pretrained.save(network, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = judge.look(stored_judges.load(tmp_path / "a", CPU), pixels, nothing)
    assert np.array_equal(again.features, found.features)
    assert np.array_equal(again.probabilities, found.probabilities)


def test_without_labels_it_names_no_classes(tmp_path):
    pixels, _ = stripes(count=40, channels=3)
    network, _ = fitted(save_image_model(tmp_path / "m"), pixels, None)
    assert judge.look(network, pixels, nothing).probabilities.shape == (40, 0)


def test_a_picture_is_judged_alike_among_others_and_alone(tmp_path):
    pixels, labels = stripes(count=40)
    network, _ = fitted(save_image_model(tmp_path / "m"), pixels, labels)
    together, alone = (judge.look(network, some, nothing) for some in (pixels, pixels[7:8]))
    assert np.array_equal(together.features[7:8], alone.features)


def test_weights_that_a_checkpoint_lacks_are_never_drawn_at_random(tmp_path):
    """A classifier has no pooler: its features are those of the last layer."""
    pixels, labels = stripes(count=40)
    folder = save_image_model(tmp_path / "m", "classifier")
    torch.manual_seed(1)
    first = judge.look(fitted(folder, pixels, labels)[0], pixels, nothing)
    torch.manual_seed(2)
    second = judge.look(fitted(folder, pixels, labels)[0], pixels, nothing)
    assert np.array_equal(first.features, second.features)


@pytest.mark.parametrize(
    ("preprocessor", "side", "mean"),
    [
        ({}, 32, 0.5),
        ({"size": {"shortest_edge": 24}, "image_mean": [0.1] * 3, "image_std": [0.2] * 3}, 24, 0.1),
        ({"size": {"height": 40, "width": 40}, "crop_size": {"height": 16, "width": 16}}, 16, 0.5),
        ({"size": 48, "do_normalize": False}, 48, 0.0),
        ({"size": {"height": "tall"}, "image_mean": "grey"}, 32, 0.5),
    ],
)
def test_pictures_are_prepared_as_the_folder_says(tmp_path, preprocessor, side, mean):
    found = pretrained._preparation(
        read_image_model(save_image_model(tmp_path / "m", **preprocessor))
    )
    assert (found["side"], found["mean"][0]) == (side, mean)


def test_a_folder_is_named_by_its_name_and_content(tmp_path):
    one = read_image_model(save_image_model(tmp_path / "one"))
    same = read_image_model(save_image_model(tmp_path / "same"))
    assert one.sha256 == same.sha256
    (tmp_path / "same" / "preprocessor_config.json").write_text('{"size": 24}')
    assert read_image_model(tmp_path / "same").sha256 != one.sha256
    assert recipe_of("/a/My model (v2)!", "ab" * 32) == "My-model-v2-abababababab"
    assert len(recipe_of("x" * 90, "0" * 64)) == 40
    assert recipe_of("/", "0" * 64) == "judge-000000000000"


def change(folder, **keys):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def lose(folder):
    (folder / "model.safetensors").unlink()


def garble(folder):
    (folder / "model.safetensors").write_bytes(b"no tensors")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lose, r"has no \*.safetensors"),
        (garble, "transformers cannot use"),
        (lambda folder: change(folder, auto_map={"AutoModel": "evil.Model"}), "never run"),
        (lambda folder: change(folder, quantization_config={}), "quantised"),
        (lambda folder: change(folder, model_type=3), "no model_type"),
        (lambda folder: change(folder, model_type="gpt2"), "GPT2Model of"),
        (lambda folder: change(folder, num_hidden_layers=3), "tensors are missing"),
        (lambda folder: change(folder, hidden_size=4096), "weights, but the files hold"),
        (lambda folder: change(folder, num_attention_heads=5), "transformers cannot use"),
    ],
)
def test_what_is_no_image_model_is_refused_by_name(tmp_path, spoil, complaint):
    folder = save_image_model(tmp_path / "m")
    spoil(folder)
    pixels, labels = stripes(count=8)
    with pytest.raises(BadInput, match=complaint):
        fitted(folder, pixels, labels)
