import pytest
import torch
from safetensors.torch import load_file

from db.errors import Draining
from tests.families.kit import Recorder, small_training, text_dataset, train_small
from worker.engine.run import build_run
from worker.engine.train import train
from worker.families.gpt import FAMILY
from worker.families.gpt.linear import Linear
from worker.networks.version_folder import WEIGHTS

pytestmark = pytest.mark.xdist_group("gpt-lora")  # its trainings are made once

TUNING = {"lora_rank": 2, "lora_alpha": 8.0, "finetune_rate": 1.0, "validate_every": 2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return text_dataset(tmp_path_factory.mktemp("texts") / "dataset")


@pytest.fixture(scope="module")
def parent(dataset, tmp_path_factory):
    return train_small(FAMILY, dataset, tmp_path_factory.mktemp("parent"), max_steps=20)


@pytest.fixture(scope="module")
def tuning(parent, dataset):
    """A training of adapters in a folder."""

    def asked(folder, **given):
        given = {"parent": parent.folder, "params": TUNING, "max_steps": 6} | given
        return small_training(FAMILY, dataset, folder, **given)

    return asked


@pytest.fixture(scope="module")
def child(tuning, tmp_path_factory):
    return train(tuning(tmp_path_factory.mktemp("child")), Recorder())


def test_fine_tuning_learns_changes_of_low_rank_only(parent, child):
    before, after = load_file(parent.folder / WEIGHTS), load_file(child.folder / WEIGHTS)

    assert list(before) == list(after)
    for name, weights in before.items():
        change = after[name] - weights
        if name.startswith("blocks."):
            sizes = torch.linalg.svdvals(change.double())
            assert sizes[1] > 1e-4
            assert sizes[2] < 1e-3 * sizes[1]
        else:
            assert not change.any()


def test_the_version_is_measured_with_its_adapters_merged(parent, child, tuning, tmp_path):
    measured = build_run(tuning(tmp_path, parent=child.folder)).network
    data = next(build_run(tuning(tmp_path)).validation())

    assert child.metrics["loss"] < parent.metrics["loss"]
    with torch.inference_mode():
        assert float(measured.validate(data)["loss"]) == pytest.approx(child.metrics["loss"])


def test_a_merged_layer_computes_what_the_adapted_one_did():
    torch.manual_seed(0)
    layer, x = Linear(6, 4), torch.randn(3, 6)
    plain = layer(x)
    layer.adapt(2, 8.0)
    assert torch.equal(layer(x), plain)

    torch.nn.init.normal_(layer.b)
    adapted = layer(x)
    layer.merge()

    assert not torch.allclose(adapted, plain)
    torch.testing.assert_close(layer(x), adapted)
    assert list(layer.state_dict()) == ["weight"]


def test_a_resumed_run_ends_as_if_it_had_never_stopped(child, tuning, tmp_path):
    monitor = Recorder(drain_at=3, keep=tmp_path)
    with pytest.raises(Draining):
        train(tuning(tmp_path / "first"), monitor)
    [(_, checkpoint)] = monitor.checkpoints
    resumed = train(tuning(tmp_path / "second", resume=checkpoint), Recorder())

    weights = [(t.folder / WEIGHTS).read_bytes() for t in (child, resumed)]
    assert weights[0] == weights[1]


def test_training_from_scratch_has_no_adapters(dataset, tmp_path):
    begun = build_run(small_training(FAMILY, dataset, tmp_path, params=TUNING, max_steps=1))

    assert all(layer.a is None for layer in begun.network.modules() if isinstance(layer, Linear))
    assert all(p.requires_grad for p in begun.network.parameters())
