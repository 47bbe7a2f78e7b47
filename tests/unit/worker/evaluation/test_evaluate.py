"""Every family is measured by its medium: numbers, arrays, a report that needs no network."""

import re

import numpy as np
import pytest
from PIL import Image

from db.errors import Draining
from tests.evaluating import measured, request_for
from tests.families.kit import Recorder
from worker.evaluation.evaluate import read_items
from worker.families import families, find_family
from worker.gate.items import Items
from worker.gate.primaries import PRIMARIES

PICTURES = {
    *("kid", "mind", "emd", "precision", "recall", "density", "coverage", "inception_score"),
    *("class_kl", "ssim_diversity", "perceptual_diversity", "intra_class_distance"),
    *("feature_entropy", "memorisation"),
}
CONDITIONAL = {"label_agreement", "made_to_real_accuracy"}
TEXTS = {
    *("loss", "perplexity", "bits_per_character", "distinct_1", "distinct_2", "distinct_3"),
    *("self_bleu", "length", "language"),
}
SOUNDS = {"bits_per_sample", "spectral_distance", "class_agreement", "made_to_real_accuracy"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "wavenet" else ())
        for name in sorted(families())
    ],
)
def test_every_family_is_measured(name, tmp_path):
    family = find_family(name)
    monitor = Recorder()
    found = measured(request_for(family, tmp_path), monitor)
    expected = {
        "image": PICTURES | CONDITIONAL,
        "audio": PICTURES | SOUNDS,
        "text": TEXTS,
    }[family.media]
    if family.name == "hf":
        expected -= {"bits_per_character"}
    assert expected <= found.numbers.keys() | found.left_out.keys()
    assert len(found.numbers) >= len(expected) - 2
    for name, number in found.numbers.items():
        assert set(number) == {"value", "low", "high", "real", "n", "better"}
        assert number["low"] <= number["value"] <= number["high"], name
    assert_the_gate_can_decide_by_each(found)
    done = [each[0] for each in monitor.told]
    assert done == sorted(done)
    assert 95 <= done[-1] <= 100
    page = next(path for path, kind in found.files if kind == "text/html").read_text("utf-8")
    assert all(f"<code>{name}</code>" in page for name in found.numbers)
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|<script", page)
    assert ("<audio" in page) == (family.media == "audio")
    assert ("<img" in page) == (family.media != "text" or "curves" in page)
    with Image.open(next(path for path, kind in found.files if kind == "image/png")) as picture:
        sheets = np.asarray(picture.convert("L"))[picture.height // 2 + 60 :]
    assert (sheets < 128).mean() > 0.001  # made and held-out items, side by side


ROUGH = {"kid": 0.1, "mind": 0.5, "emd": 0.5}  # other pairs, fewer directions, exact if few


def assert_the_gate_can_decide_by_each(found):
    """What is resampled has the recorded value where each item comes once."""
    items = Items(read_items(found.files[0][0]), found.numbers)
    for name, number in found.numbers.items():
        primary = PRIMARIES[name]
        primary.check(items)
        once = [np.ones((1, size)) for size, _ in primary.drawn(items)]
        value = primary.statistic(items)(once)[0]
        if number["better"] == "closer":
            if number["real"] is None:
                continue
            expected = abs(number["value"] - number["real"])
        else:
            expected = number["value"]
        assert value == pytest.approx(expected, rel=ROUGH.get(name, 1e-5), abs=1e-6), name


def test_equal_evaluations_give_equal_items_and_numbers(tmp_path):
    first = request_for(find_family("vae"), tmp_path / "a")
    again = request_for(
        find_family("vae"), tmp_path / "b", dataset=first.dataset, network=first.files
    )
    one, other = measured(first), measured(again)
    assert one.files[0][0].read_bytes() == other.files[0][0].read_bytes()
    assert one.numbers == other.numbers
    arrays = read_items(one.files[0][0])
    assert {len(array) for array in arrays.values()} == {24}
    assert arrays["made_features"].dtype == arrays["real_features"].dtype == np.float32
    assert set(arrays["made_labels"].tolist()) == {0, 1}


def test_samples_are_asked_for_the_labels_of_held_out_items(tmp_path):
    request = request_for(find_family("gan"), tmp_path, count=9)
    arrays = read_items(measured(request).files[0][0])
    held_out = np.asarray(request.dataset.array("labels"))[64:]
    assert arrays["made_labels"].tolist() != [0, 1] * 4 + [0]  # not in turn
    assert set(arrays["made_labels"].tolist()) <= set(held_out.tolist())


def test_the_frechet_distance_of_few_items_is_left_out_with_the_reason(tmp_path):
    found = measured(request_for(find_family("gan"), tmp_path))
    assert "fid" not in found.numbers
    assert "2,000" in found.left_out["fid"]


@pytest.mark.parametrize("count", [1, 3])
def test_of_very_few_items_what_takes_more_is_left_out_with_the_reason(tmp_path, count):
    found = measured(request_for(find_family("vae"), tmp_path, count=count))
    assert found.left_out["kid"] == f"it takes 4 items, and there are {count}"
    assert "mind" in found.numbers
    assert ("perceptual_diversity" in found.numbers) == (count > 1)


def test_an_evaluation_stops_when_the_worker_drains(tmp_path):
    request = request_for(find_family("gan"), tmp_path)
    with pytest.raises(Draining):
        measured(request, Recorder(drain_at=60))
