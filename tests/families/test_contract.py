"""The contract that every family keeps. A new family is found, and passes without a line here."""

import json
import re
import shutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from db.errors import BadInput, Draining, NonFinite, Refused
from scheduler.models.folder_check import check_folder
from tests.families.export import export_and_import
from tests.families.kit import (
    Recorder,
    dataset_for,
    image_dataset,
    make,
    plain,
    run,
    small_params,
    small_sampling,
    small_training,
    train_small,
)
from worker.data.dataset import LocalDataset
from worker.engine.inspection import inspect
from worker.engine.run import build_run
from worker.engine.sampler import Sampler
from worker.engine.tensors import read_tensors
from worker.engine.train import Trained, train
from worker.engine.weights import load
from worker.families import families
from worker.networks.family import Family
from worker.networks.network import Network, Row
from worker.networks.version_folder import CONFIG
from worker.specs import parse_params

CPU = torch.device("cpu")
STEPS = 30
RESUMABLE = {
    "max_steps": 9,
    "seed": 4,
    "params": {"validate_every": 4, "batch_size": 8},
}  # a training that is stopped on the way


class Impatient(Recorder):
    """Stops the run once the first validation has reported so many batches."""

    def __init__(self, batches: int, **given: Any) -> None:
        super().__init__(**given)
        self.left = batches

    def progress(self, done: float, *more: Any, **named: Any) -> None:
        super().progress(done, *more, **named)
        stack = [frame.name for frame in traceback.extract_stack(limit=6)]
        self.left -= "mean_losses" in stack
        if self.left < 0:
            raise Draining


class UntilLower(Recorder):
    """Stops the run once the validation loss is a fifth lower than at first."""

    def points(self, step: int, values: Mapping[str, float]) -> None:
        super().points(step, values)
        first, *more = (value for _, value in self.curves.get("validation/loss", [(0, 0.0)]))
        if len(more) >= 3 and np.mean(more[-3:]) < 0.8 * first:
            raise Draining


@pytest.fixture(scope="module", params=sorted(families()))
def family(request: pytest.FixtureRequest) -> Family:
    return families()[request.param]


@pytest.fixture(scope="module")
def dataset(family: Family, tmp_path_factory: pytest.TempPathFactory) -> LocalDataset:
    return dataset_for(family, tmp_path_factory.mktemp(family.name) / "dataset")


@pytest.fixture(scope="module")
def trained(
    family: Family, dataset: LocalDataset, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    folder = tmp_path_factory.mktemp(family.name) / "run"
    return train_small(family, dataset, folder, max_steps=STEPS, seed=1)


@pytest.fixture(scope="module")
def straight(
    family: Family, dataset: LocalDataset, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """A run that was never stopped."""
    return train_small(family, dataset, tmp_path_factory.mktemp(family.name) / "run", **RESUMABLE)


@pytest.fixture
def network(trained: Trained) -> Network:
    return load(trained.folder, device=CPU)[1]


def test_validation_loss_falls_in_a_short_run(
    family: Family, dataset: LocalDataset, tmp_path: Path
) -> None:
    asked = {"params": {"validate_every": 5}, "max_steps": 150}
    with pytest.raises(Draining):
        train(small_training(family, dataset, tmp_path / "run", **asked), UntilLower())


def test_version_holds_weights_and_configuration(family: Family, trained: Trained) -> None:
    names = [path.name for path in trained.files]
    assert names[:2] == [family.network().weights_file, "config.json"]
    assert all(path.parent == trained.folder and path.is_file() for path in trained.files)
    assert trained.metrics["samples_per_second"] > 0
    assert trained.metrics["row_bytes"] > 0
    assert trained.metrics["steps"] == trained.steps == STEPS


def test_samples_have_the_data_s_shape_and_range(family: Family, network: Network) -> None:
    shape = network.shape
    for sample in make(family, network, 0, 20):
        if family.media == "image":
            assert isinstance(sample.output, np.ndarray)
            assert sample.output.shape == (shape.size, shape.size, shape.channels)
            assert sample.output.dtype == np.uint8
        elif family.media == "audio":
            assert isinstance(sample.output, np.ndarray)
            assert sample.output.ndim == 1
            assert sample.output.dtype == np.float32
            assert 0 < len(sample.output) <= shape.sample_rate
            assert np.abs(sample.output).max() <= 1
        elif family.media == "text":
            assert isinstance(sample.output, str)


def test_sample_depends_on_seed_and_index_alone(family: Family, network: Network) -> None:
    whole = plain(make(family, network, 0, 64))
    assert plain(make(family, network, 0, 1)) == whole[:1]
    assert plain(make(family, network, 7, 14)) == whole[7:14]
    assert plain(make(family, network, 3, 53)) == whole[3:53]
    assert plain(make(family, network, 0, 64, seed=6)) != whole


def test_neighbours_of_a_row_do_not_matter(family: Family, network: Network) -> None:
    labels = len(network.shape.labels)
    rows = [Row(index, index % labels if labels else None, seed=5) for index in (3, 90, 4, 17)]
    sampler = Sampler(network, small_sampling(family))
    there, back = sampler.make(rows), sampler.make(rows[::-1])[::-1]
    assert [_bytes(output) for output in there] == [_bytes(output) for output in back]


def test_samples_of_different_indices_differ(family: Family, network: Network) -> None:
    labels = len(network.shape.labels)
    of_one_label = make(family, network, 0, 16, label=0 if labels else None)
    assert len(set(plain(of_one_label))) > 8


def test_a_resumed_run_ends_as_if_it_had_never_stopped(
    family: Family, dataset: LocalDataset, straight: Trained, tmp_path: Path
) -> None:
    monitor = Recorder(drain_at=6, keep=tmp_path)
    with pytest.raises(Draining):
        train(small_training(family, dataset, tmp_path / "first", **RESUMABLE), monitor)
    [(step, checkpoint)] = monitor.checkpoints
    assert step == 6
    resumed = train_small(family, dataset, tmp_path / "second", resume=checkpoint, **RESUMABLE)
    weights = [t.files[0].read_bytes() for t in (straight, resumed)]
    assert weights[0] == weights[1]
    assert straight.metrics["loss"] == resumed.metrics["loss"]


@pytest.mark.parametrize("batches", [0, 1])
def test_a_run_stopped_within_a_validation_makes_it_again_when_it_resumes(
    family: Family, dataset: LocalDataset, straight: Trained, tmp_path: Path, batches: int
) -> None:
    monitor = Impatient(batches, keep=tmp_path)
    with pytest.raises(Draining):
        train(small_training(family, dataset, tmp_path / "first", **RESUMABLE), monitor)
    [(step, checkpoint)] = monitor.checkpoints
    assert step >= 4
    resumed = train_small(family, dataset, tmp_path / "second", resume=checkpoint, **RESUMABLE)
    assert straight.files[0].read_bytes() == resumed.files[0].read_bytes()
    for name in ("loss", "kept_step"):
        assert straight.metrics[name] == resumed.metrics[name]


def test_checkpoint_of_another_run_is_refused(
    family: Family, dataset: LocalDataset, tmp_path: Path
) -> None:
    monitor = Recorder(drain_at=2, keep=tmp_path)
    with pytest.raises(Draining):
        train(small_training(family, dataset, tmp_path / "a", max_steps=4), monitor)
    checkpoint = monitor.checkpoints[0][1]
    asked = {"max_steps": 4, "seed": 1, "resume": checkpoint}
    with pytest.raises(BadInput, match="another training run"):
        build_run(small_training(family, dataset, tmp_path / "b", **asked))


def test_wrong_parameter_is_refused_by_name(family: Family) -> None:
    with pytest.raises(Refused, match=r"no parameter 'batch_sise' \(did you mean 'batch_size'"):
        small_params(family, batch_sise=3)
    with pytest.raises(Refused, match=r"micro_batch: .*got 0"):
        parse_params(family.sampling, {"micro_batch": 0}, what=family.name)


def test_finetuning_begins_where_the_parent_ended(
    family: Family, dataset: LocalDataset, trained: Trained, tmp_path: Path
) -> None:
    asked = small_training(family, dataset, tmp_path / "run", parent=trained.folder, max_steps=3)
    begun = build_run(asked).network.state_dict()
    parent = load(trained.folder, device=CPU)[1].state_dict()
    assert all(torch.equal(begun[name], value) for name, value in parent.items())
    child = train(asked, Recorder())
    assert child.files[0].read_bytes() != trained.files[0].read_bytes()
    assert [path.name for path in child.files] == [path.name for path in trained.files]


def test_finetuning_moves_the_weights_less_than_training_at_the_full_rate(
    family: Family, dataset: LocalDataset, trained: Trained, tmp_path: Path
) -> None:
    parent = load(trained.folder, device=CPU)[1].state_dict()
    moved = []
    for rate in (0.1, 1.0):
        asked = small_training(
            family,
            dataset,
            tmp_path / str(rate),
            params={"finetune_rate": rate},
            parent=trained.folder,
            max_steps=1,
        )
        child = load(run(asked).folder, device=CPU)[1].state_dict()
        moved.append(
            sum(float((child[n] - v).abs().sum()) for n, v in parent.items() if v.ndim > 1)
        )
    assert 0 < moved[0] < 0.5 * moved[1]


def test_finetuning_with_another_network_is_refused(
    family: Family, dataset: LocalDataset, trained: Trained, tmp_path: Path
) -> None:
    resized = {
        key: 2 * getattr(small_params(family), key)
        for key in ("channels", "hidden", "width", "states", "rank")
        if key in family.params.model_fields
    }
    assert resized, "name one of the parameters that set the network's size like other families"
    with pytest.raises(BadInput) as refused:
        build_run(
            small_training(
                family,
                dataset,
                tmp_path / "run",
                parent=trained.folder,
                params=resized,
                max_steps=1,
            )
        )
    assert refused.value.remedy


def test_family_trains_and_samples_in_bf16(
    family: Family, dataset: LocalDataset, tmp_path: Path
) -> None:
    trained = train_small(family, dataset, tmp_path / "run", max_steps=3, precision="bf16")
    network = load(trained.folder, device=CPU)[1]
    # hmm counts in float64, so that its likelihood is seen never to fall
    assert {value.dtype for value in network.parameters()} <= {torch.float32, torch.float64}
    whole = plain(make(family, network, 0, 20, precision="bf16"))
    assert plain(make(family, network, 5, 6, precision="bf16")) == whole[5:6]


def test_version_has_the_files_that_the_family_declares(trained: Trained) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert names == {CONFIG, *check_folder(trained.folder).names}


def test_exported_and_imported_elsewhere_it_makes_equal_samples(
    family: Family, network: Network, trained: Trained, tmp_path: Path, sqlite_template: Path
) -> None:
    imported = export_and_import(trained.folder, tmp_path, sqlite_template, family=family)
    assert {path.name for path in imported.iterdir()} == {p.name for p in trained.folder.iterdir()}
    again = load(imported, device=CPU)[1]
    assert plain(make(family, again, 0, 20)) == plain(make(family, network, 0, 20))


def test_folder_without_a_file_that_the_family_declares_is_refused(
    family: Family, trained: Trained, tmp_path: Path
) -> None:
    for file in family.files:
        if file.needed(small_params(family)):
            shutil.copytree(trained.folder, tmp_path / file.name)
            (tmp_path / file.name / file.name).unlink()
            with pytest.raises(BadInput, match=f"no {re.escape(file.name)}"):
                check_folder(tmp_path / file.name)


TENSOR_FAULTS = {
    "missing": lambda tensors, name: tensors.pop(name),
    "left over": lambda tensors, name: tensors.update(extra=tensors[name].clone()),
    "renamed": lambda tensors, name: tensors.update({f"{name}_": tensors.pop(name)}),
    "other shape": lambda tensors, name: tensors.update({name: tensors[name][None]}),
    "not finite": lambda tensors, name: tensors[name].view(-1)[0].fill_(torch.nan),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_folder_whose_tensors_are_not_the_network_s_is_refused(
    family: Family, trained: Trained, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained.folder, folder)
    path = folder / family.network().weights_file
    tensors, _ = read_tensors(path)
    name = min(name for name, value in tensors.items() if value.is_floating_point() and value.dim())
    TENSOR_FAULTS[fault](tensors, name)
    save_file(tensors, path)
    assert inspect(trained.folder)
    with pytest.raises(BadInput, match=r"does not fit|damaged"):
        inspect(folder)


def test_folder_with_the_tokenizer_of_another_network_is_refused(
    family: Family, trained: Trained, tmp_path: Path
) -> None:
    path = trained.folder / "tokenizer.json"
    if not path.exists() or family.foreign:
        return
    folder = tmp_path / "copy"
    shutil.copytree(trained.folder, folder)
    data = json.loads(path.read_text("utf-8"))
    data["model"]["vocab"]["unseen"] = len(data["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    with pytest.raises(BadInput, match=r"the tokenizer has \d+ tokens, but the network has \d+"):
        inspect(folder)


def test_network_gone_to_nan_makes_no_samples(family: Family, network: Network) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(NonFinite):
        make(family, network, 0, 1)


def test_family_of_images_learns_from_unlabelled_colour_pictures(
    family: Family, tmp_path: Path
) -> None:
    if family.media != "image":
        pytest.skip(f"{family.name} makes {family.media}")
    captioned = family.needs_captions
    pictures = image_dataset(tmp_path / "dataset", channels=3, labels=(), captioned=captioned)
    trained = train_small(family, pictures, tmp_path / "run", max_steps=2)
    [sample] = make(family, load(trained.folder, device=CPU)[1], 0, 1)
    assert sample.label is None
    assert isinstance(sample.output, np.ndarray)
    assert sample.output.shape == (12, 12, 3)


def _bytes(output: object) -> object:
    return output if isinstance(output, str) else np.asarray(output).tobytes()
