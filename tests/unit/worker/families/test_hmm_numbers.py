"""Gaussian emissions of `hmm`: documents of numbers, and samples of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import BadInput, Refused
from scheduler.models.folder_check import check_folder
from tests.families.export import export_and_import
from tests.families.kit import make, plain, train_small
from worker.data.dataset import LocalDataset
from worker.engine.train import Trained
from worker.engine.weights import load
from worker.families import find_family
from worker.families.hmm.model import HiddenMarkovModel
from worker.families.hmm.numbers import parse_numbers, write_numbers
from worker.networks.network import Draw, Row

CPU = torch.device("cpu")
HMM = find_family("hmm")


def number_dataset(folder: Path, *, dimensions: int = 2) -> LocalDataset:
    """Two levels, 100 and 200, each held for some steps, with deviations of 5 and 10."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    rows = []
    for split in (0, 0, 0, 1):
        state, vectors = 0, []
        for _ in range(200):
            state = state if draw.uniform() < 0.9 else 1 - state
            vectors.append(draw.normal((100, 200)[state], (5, 10)[state], dimensions))
        rows.append({"split": split, "text": write_numbers(np.array(vectors))})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "documents.jsonl").write_text(lines, "utf-8")
    (folder / "manifest.json").write_text("{}", "utf-8")
    return LocalDataset(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A gaussian model of the two levels."""
    folder = tmp_path_factory.mktemp("numbers")
    params = {"emissions": "gaussian", "states": 2, "batch_size": 1000, "prior": 0.01}
    dataset = number_dataset(folder / "dataset")
    return train_small(HMM, dataset, folder / "run", params=params, max_steps=30, seed=1)


@pytest.fixture(scope="module")
def numbers(trained: Trained) -> HiddenMarkovModel:
    network = load(trained.folder, device=CPU)[1]
    assert isinstance(network, HiddenMarkovModel)
    # the process itself has 7.2 nats a vector: a state's entropy rate and its vector's entropy
    assert 6.8 < trained.metrics["loss"] < 7.6
    return network


def test_numbers_exported_and_imported_elsewhere_keep_their_scale(
    trained: Trained, numbers: HiddenMarkovModel, tmp_path: Path, sqlite_template: Path
) -> None:
    imported = export_and_import(trained.folder, tmp_path, sqlite_template, family=HMM)
    again = load(imported, device=CPU)[1]
    assert plain(make(HMM, again, 0, 8)) == plain(make(HMM, numbers, 0, 8))


def test_numbers_without_their_scale_are_not_imported(trained: Trained, tmp_path: Path) -> None:
    copy = shutil.copytree(trained.folder, tmp_path / "copy")
    (copy / "scale.json").unlink()
    with pytest.raises(BadInput, match=r"no scale\.json"):
        check_folder(copy)


def test_gaussian_emissions_find_the_levels_of_numbers(numbers: HiddenMarkovModel) -> None:
    mean, variance = numbers.kind.moments(numbers.model.emissions)
    levels = numbers.scale.undo(mean.numpy())
    low, high = sorted(levels[:, 0])
    assert (low, high) == (pytest.approx(100, abs=3), pytest.approx(200, abs=6))
    deviations = variance.sqrt().numpy() * numbers.scale.deviation
    assert sorted(deviations[:, 0]) == [pytest.approx(5, abs=1.5), pytest.approx(10, abs=2)]
    assert numbers.model.chain.transitions.diag().tolist() == pytest.approx([0.9, 0.9], abs=0.05)


def test_samples_of_numbers_are_lines_of_vectors_that_repeat(numbers: HiddenMarkovModel) -> None:
    made = _lines(numbers, 20)
    assert _lines(numbers, 7, start=5) == made[5:12]
    vectors = np.concatenate([parse_numbers(line) for line in made])
    assert vectors.shape == (20 * 12, 2)
    near = np.abs(vectors[:, :1] - [[100, 200]]).min(1)
    assert np.mean(near < 30) > 0.98
    assert len(set(made)) == 20


def test_numbers_go_on_from_a_prompt(numbers: HiddenMarkovModel) -> None:
    rows = [Row(index, prompt="101,99" if index % 2 else "198,204") for index in range(60)]
    sampling = HMM.sampling(max_tokens=1, micro_batch=60)
    made = numbers.sample(rows, Draw([(3, i) for i in range(60)]), sampling)
    first = np.array([parse_numbers(line)[0, 0] for line in made])
    assert np.mean(first[1::2] < 150) > 0.75
    assert np.mean(first[::2] > 150) > 0.75


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 2 x3", "'x3' is not a number"),
        ("1,2 3", "'3' has 1 components, not 2"),
        ("nan", "not a num"),
    ],
)
def test_what_is_no_number_is_refused_by_its_word(
    numbers: HiddenMarkovModel, tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(BadInput, match=complaint):
        numbers.sample([Row(0, prompt=text)], Draw([(0, 0)]), HMM.sampling(micro_batch=1))
    dataset = number_dataset(tmp_path / "dataset")
    row = json.dumps({"split": 0, "text": text}) + "\n"
    (dataset.folder / "documents.jsonl").write_text(row, "utf-8")
    with pytest.raises(Refused, match=complaint):
        train_small(HMM, dataset, tmp_path / "run", params={"emissions": "gaussian"}, max_steps=1)


def test_numbers_of_another_size_are_refused_in_a_prompt(numbers: HiddenMarkovModel) -> None:
    with pytest.raises(BadInput, match="vectors have 3 components, those of the model 2"):
        numbers.sample([Row(0, prompt="1,2,3")], Draw([(0, 0)]), HMM.sampling(micro_batch=1))


def test_numbers_in_batches_are_learnt_stepwise(tmp_path: Path) -> None:
    params = {"emissions": "gaussian", "states": 2, "batch_size": 8}
    dataset = number_dataset(tmp_path / "dataset", dimensions=1)
    trained = train_small(HMM, dataset, tmp_path / "run", params=params, max_steps=40)
    assert trained.metrics["loss"] < 4.4  # one normal distribution has 5.4


def _lines(network: HiddenMarkovModel, count: int, *, start: int = 0) -> list[object]:
    return plain(make(HMM, network, start, start + count))
