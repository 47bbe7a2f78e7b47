from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from db.causes import Cause, cause_of
from tests.families.kit import image_dataset, small_training
from worker.engine.checkpoints import BadCheckpoint, State
from worker.engine.run import Run, build_run
from worker.families import find_family
from worker.networks.formats import Migration
from worker.networks.network import Clock


@pytest.fixture
def run(tmp_path: Path) -> Run:
    dataset = image_dataset(tmp_path / "dataset")
    return build_run(small_training(find_family("gan"), dataset, tmp_path / "run", max_steps=9))


@pytest.fixture
def path(run: Run, tmp_path: Path) -> Path:
    """A checkpoint after three steps."""
    for step in range(3):
        run.network.train_step(run.batch(step), run.parts.optimizers, Clock(step, step / 9))
    run.parts.state = State(
        step=3,
        elapsed_s=0.1 + 0.2,
        marks={"points": (1, 2)},
        best_step=2,
        best_losses={"loss": 1 / 3},
        curves={"train/loss": [(1, 0.5)]},
    )
    run.parts.best = {n: torch.ones_like(value) for n, value in run.network.state_dict().items()}
    run.parts.snapshot(fingerprint=run.fingerprint).write(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_checkpoint_gives_back_all_that_a_run_is(run: Run, path: Path) -> None:
    fresh = build_run(run.training)
    fresh.parts.restore(path, fingerprint=run.fingerprint)
    assert fresh.parts.state == run.parts.state
    assert fresh.parts.best.keys() == run.network.state_dict().keys()
    assert all(torch.equal(value, torch.ones_like(value)) for value in fresh.parts.best.values())
    for name, optimizer in run.parts.optimizers.items():
        state, again = optimizer.state_dict(), fresh.parts.optimizers[name].state_dict()
        assert state["state"].keys() == again["state"].keys()
        assert [g["lr"] for g in state["param_groups"]] == [g["lr"] for g in again["param_groups"]]
        for index, values in state["state"].items():
            assert all(torch.equal(v, again["state"][index][key]) for key, v in values.items())


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", None])
def test_damaged_checkpoint_is_refused(run: Run, path: Path, damage: bytes | None) -> None:
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        run.parts.restore(path, fingerprint=run.fingerprint)


def test_weights_are_no_checkpoint(run: Run, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(BadCheckpoint, match="of another training run or another genmill"):
        run.parts.restore(tmp_path / "weights", fingerprint=run.fingerprint)


def test_parameters_seed_budget_and_data_make_a_run_s_identity(run: Run, tmp_path: Path) -> None:
    family, dataset, folder = find_family("gan"), run.training.dataset, tmp_path / "other"
    same = small_training(family, dataset, folder, max_steps=9)
    assert same.fingerprint() == run.fingerprint
    others = [
        small_training(family, dataset, folder, max_steps=8),
        small_training(family, dataset, folder, max_steps=9, seed=1),
        small_training(family, dataset, folder, max_steps=9, params={"lr": 0.1}),
        small_training(family, image_dataset(tmp_path / "b", size=28), folder, max_steps=9),
    ]
    assert run.fingerprint not in {other.fingerprint() for other in others}


def test_a_run_of_another_format_is_another_run(run: Run, monkeypatch) -> None:
    family = replace(run.training.family, migrations=(Migration(),))
    assert replace(run.training, family=family).fingerprint() != run.fingerprint


def test_a_checkpoint_with_other_weights_among_the_best_is_refused(run: Run, path: Path) -> None:
    run.parts.best = {"x": torch.ones(2)}
    run.parts.snapshot(fingerprint=run.fingerprint).write(path)
    with pytest.raises(BadCheckpoint, match="best/ are not the network's"):
        build_run(run.training).parts.restore(path, fingerprint=run.fingerprint)


def allocate() -> None:
    """Fail as torch does where memory is short: with no class of its own."""
    torch.empty(1 << 60, dtype=torch.uint8)


def of_gpu() -> None:
    """Fail as `load_state_dict` does after a fault of a GPU: with the text alone."""
    copying = 'While copying the parameter named "a", an exception occurred'
    raise RuntimeError(f"{copying}: ('CUDA error: an illegal memory access was encountered',)")


@pytest.mark.parametrize(
    ("act", "kind", "cause"),
    [
        (allocate, RuntimeError, Cause.MACHINE),
        (of_gpu, torch.AcceleratorError, Cause.UNKNOWN),
    ],
)
def test_a_good_checkpoint_is_not_condemned_where_the_machine_fails(
    run: Run, path: Path, monkeypatch, act, kind, cause
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run.parts.network, "load_state_dict", lambda _: act())
        with pytest.raises(kind) as met:
            run.parts.restore(path, fingerprint=run.fingerprint)
    assert cause_of(met.value) is cause
    run.parts.restore(path, fingerprint=run.fingerprint)
