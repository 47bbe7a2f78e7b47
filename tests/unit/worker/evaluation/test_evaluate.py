"""Every family is measured by its medium: numbers, arrays, a report that needs no network."""

import re

import numpy as np
import pytest

from db.errors import Draining
from tests.evaluating import measured, request_for
from tests.families.kit import Recorder
from worker.evaluation.evaluate import read_items
from worker.evaluation.numbers import BETTER
from worker.evaluation.report.meanings import MEANINGS
from worker.families import families, find_family

PICTURES = {
    *("kid", "mind", "emd", "precision", "recall", "density", "coverage", "inception_score"),
    *("class_kl", "ssim_diversity", "perceptual_diversity", "intra_class_distance"),
    *("feature_entropy", "memorisation"),
}
CONDITIONAL = {"label_agreement", "made_to_real_accuracy"}
TEXTS = {
    *("loss", "perplexity", "bits_per_character", "distinct_1", "distinct_2", "distinct_3"),
    *("self_bleu", "length"),
}
SOUNDS = {"bits_per_sample", "spectral_distance", "class_agreement", "made_to_real_accuracy"}


def test_each_number_has_a_direction_and_a_meaning():
    assert BETTER.keys() == MEANINGS.keys()


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
    done = [each[0] for each in monitor.told]
    assert done == sorted(done)
    assert 95 <= done[-1] <= 100
    page = next(path for path, kind in found.files if kind == "text/html").read_text("utf-8")
    assert all(f"<code>{name}</code>" in page for name in found.numbers)
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|<script", page)


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


def test_an_evaluation_stops_when_the_worker_drains(tmp_path):
    request = request_for(find_family("gan"), tmp_path)
    with pytest.raises(Draining):
        measured(request, Recorder(drain_at=60))
