"""Judges on image models that users bring: CLIP, ViT, ResNet and the like, never run as code."""

import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from db.errors import BadInput
from tests.evaluating import CPU
from tests.families.image_models import KINDS, save_image_model
from tests.unit.worker.evaluation.test_judge import nothing, stripes
from worker.evaluation import judge, pretrained
from worker.evaluation.image_models import refuse_unusable
from worker.evaluation.judging import load_judge
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
    again = judge.look(load_judge(tmp_path / "a", CPU), pixels, nothing)
    assert np.array_equal(again.features, found.features)
    assert np.array_equal(again.probabilities, found.probabilities)


def test_without_labels_it_names_no_classes(tmp_path):
    pixels, _ = stripes(count=40, channels=3)
    network, _ = fitted(save_image_model(tmp_path / "m"), pixels, None)
    assert judge.look(network, pixels, nothing).probabilities.shape == (40, 0)


def test_weights_that_are_not_finite_judge_nothing(tmp_path):
    pixels, labels = stripes(count=40)
    folder = save_image_model(tmp_path / "m")
    [path] = folder.glob("*.safetensors")
    save_file({name: each * math.nan for name, each in load_file(path).items()}, path)
    with pytest.raises(BadInput, match="not finite numbers"):
        fitted(folder, pixels, labels)


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
        ({"size": {"longest_edge": 48}, "crop_size": None, "image_mean": 0.4}, 32, 0.4),
        ({"size": {"shortest_edge": 24}, "image_mean": [0.1] * 3, "image_std": [0.2] * 3}, 24, 0.1),
        ({"size": {"height": 40, "width": 40}, "crop_size": {"height": 16, "width": 16}}, 16, 0.5),
        ({"size": 48, "do_normalize": False}, 48, 0.0),
    ],
)
def test_pictures_are_prepared_as_the_folder_says(tmp_path, preprocessor, side, mean):
    found = read_image_model(save_image_model(tmp_path / "m", **preprocessor)).preparation
    assert (found.side, found.mean[0]) == (side, mean)


@pytest.mark.parametrize(
    ("preprocessor", "complaint"),
    [
        ('{"size": ', "not JSON"),
        ("[]", "not a JSON object"),
        ('{"size": {"height": "tall"}}', "size: expected pixels from 1 to 4,096 (got {"),
        ('{"crop_size": 0}', "crop_size: expected pixels"),
        ('{"image_mean": "grey"}', "image_mean: expected three numbers (got 'grey')"),
        ('{"image_mean": [0.5, NaN, 0.5]}', "image_mean: expected three numbers"),
        ('{"image_std": [0.5, 0, 0.5]}', "image_std: expected numbers greater than 0"),
        ('{"do_normalize": "yes"}', "do_normalize: expected true or false (got 'yes')"),
    ],
)
def test_a_damaged_preprocessor_is_refused(tmp_path, preprocessor, complaint):
    folder = save_image_model(tmp_path / "m")
    (folder / "preprocessor_config.json").write_text(preprocessor)
    with pytest.raises(BadInput, match=re.escape(complaint)) as error:
        read_image_model(folder)
    assert "m/preprocessor_config.json: " in str(error.value)
    assert error.value.remedy


def test_what_no_preprocessor_states_is_told(tmp_path):
    folder = save_image_model(tmp_path / "m")
    told = read_image_model(folder).warning
    assert "is missing; assumed: pictures of 32 x 32 pixels (as config.json says) and col" in told
    save_image_model(folder, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    assert "does not say it all; assumed: pictures of 32" in read_image_model(folder).warning
    save_image_model(folder, size=32, do_normalize=False)
    assert read_image_model(folder).warning is None


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


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def save_bert(folder):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**small, intermediate_size=16, vocab_size=99)).save_pretrained(folder)


def save_blind(folder):
    """Its configuration alone does not tell."""
    save_bert(folder)
    change(folder, image_size=32)


def lose_part(folder):
    lose(folder)
    KINDS["vit"]().save_pretrained(folder, max_shard_size="20KB")
    min(folder.glob("*-of-*")).unlink()


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lose, "has no model.safetensors"),
        (lose_part, "has no 'model-00001-of-"),
        (garble, "not a safetensors file"),
        (cut, "not downloaded or copied to its end"),
        (save_bert, "a model of type 'bert' does not look at pictures"),
        (save_blind, "a BertModel takes input_ids, no pictures"),
        (lambda folder: change(folder, intermediate_size=48), r"has the sizes \[32\], and by"),
        (lambda folder: change(folder, auto_map={"AutoModel": "evil.Model"}), "never run"),
        (lambda folder: change(folder, quantization_config={}), "quantised"),
        (lambda folder: change(folder, model_type=3), "no model_type"),
        (lambda folder: change(folder, model_type="gpt2"), "GPT2Model of"),
        (lambda folder: change(folder, num_hidden_layers=3), "tensors are missing"),
        (lambda folder: change(folder, hidden_size=4096), "weights, but the files hold"),
        (lambda folder: change(folder, num_attention_heads=5), "tensors do not fit"),
        (lambda folder: save_image_model(folder, size=24), "size .24.24. doesn't match model"),
    ],
)
def test_what_is_no_image_model_is_refused_by_name(tmp_path, spoil, complaint):
    """By the headers alone, before a job is stored, and by the worker."""
    folder = save_image_model(tmp_path / "m")
    spoil(folder)
    pixels, labels = stripes(count=8)
    with pytest.raises(BadInput, match=complaint):
        refuse_unusable(read_image_model(folder))
    with pytest.raises(BadInput, match=complaint):
        fitted(folder, pixels, labels)


@pytest.mark.parametrize("kind", KINDS)
def test_by_its_headers_an_image_model_is_usable(tmp_path, kind):
    refuse_unusable(read_image_model(save_image_model(tmp_path / kind, kind)))
