"""No family leaves a tensor on the CPU that belongs on the network's device."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families.elsewhere import Elsewhere, elsewhere
from tests.families.kit import dataset_for, make, plain, small_training
from worker.engine.run import Run, build_run
from worker.engine.weights import load, save
from worker.families import families
from worker.families.rnn.model import Layer
from worker.networks.network import Clock

__all__ = ["elsewhere"]

GIVEN: dict[str, list[dict[str, Any]]] = {  # parameters that together lead through all code
    "gan": [
        {"loss": "wgan-gp", "augment": "color,translation,cutout", "minibatch_stddev": True},
        {"loss": "relativistic", "r2": 1.0, "spectral_norm": True},
    ],
    "gpt": [{"dropout": 0.1}],
    "hf": [{"checkpointing": True, "dropout": 0.1}],
    "hmm": [{"restarts": 2}],
    "rnn": [{"cell": "gru"}, {"cell": "lstm", "dropout": 0.1}],
    "text2image": [{"quantiser": "fsq"}, {"quantiser": "vq"}],
    "vae": [{"binarise": "stochastic"}, {"likelihood": "logistic"}],
}
CASES = [(name, given) for name in sorted(families()) for given in GIVEN.get(name, [{}])]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_family_trains_resumes_and_samples_elsewhere(
    name: str, given: dict[str, Any], tmp_path: Path, elsewhere: torch.device
) -> None:
    family, checkpoint = families()[name], tmp_path / "checkpoint.safetensors"
    dataset = dataset_for(family, tmp_path / "dataset")
    asked = {"params": given, "device": elsewhere, "max_steps": 2}
    training = small_training(family, dataset, tmp_path / "run", **asked)
    straight = taught(build_run(training), [0, 1], checkpoint)
    again = replace(training, folder=tmp_path / "again", resume=checkpoint)
    resumed = taught(build_run(again), [1], checkpoint)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    network = load(version(build_run(again)), device=elsewhere)[1]
    assert all(isinstance(weight, Elsewhere) for weight in network.parameters())
    assert len(plain(make(family, network, 0, 3))) == 3


def test_recurrent_layer_elsewhere_computes_in_fp32(elsewhere: torch.device) -> None:
    layer = Layer("gru", 4, 8).to(elsewhere)
    x = torch.ones(3, 2, 4, dtype=torch.bfloat16, device=elsewhere)  # (T, B, C)
    y, state = layer(x, torch.zeros(1, 2, 8, device=elsewhere))
    assert y.dtype == state.dtype == torch.float32


def taught(run: Run, steps: list[int], checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights after some steps of training, the run being stored after the first step."""
    for step in steps:
        clock = Clock(step=step, progress=0.9 * step)
        run.network.train().train_step(run.batch(step), run.parts.optimizers, clock)
        if step == 0:
            run.parts.snapshot(fingerprint=run.fingerprint).write(checkpoint)
    return {name: value.cpu().clone() for name, value in run.network.state_dict().items()}


def version(run: Run) -> Path:
    """The folder of a run's files once it has ended, its losses measured."""
    run.network.end_training()
    with torch.no_grad():
        losses = run.network.eval().validate(next(run.validation()))
    assert all(torch.isfinite(loss) for loss in losses.values())
    save(run.network, run.version, family=run.training.family)
    for path in run.training.parent.iterdir() if run.training.parent else ():
        if not (run.version / path.name).exists():
            (run.version / path.name).hardlink_to(path)
    return run.version
