"""Every family on a CUDA device: it trains, and a sample's bytes depend on (seed, index) alone."""

from pathlib import Path

import pytest
import torch

from tests.families.kit import Recorder, dataset_for, make, plain, small_training
from worker.engine.train import train
from worker.engine.weights import load
from worker.families import families

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(families()))
def test_a_family_trains_and_repeats_its_samples(name: str, precision: str, tmp_path: Path) -> None:
    family, device = families()[name], torch.device("cuda:0")
    asked = small_training(
        family,
        dataset_for(family, tmp_path / "dataset"),
        tmp_path / "run",
        max_steps=5,
        device=device,
        precision=precision,
    )
    trained = train(asked, Recorder())
    network = load(trained.folder, device=device)[1]
    whole = plain(make(family, network, 0, 20, precision=precision))
    parts = [make(family, network, a, b, precision=precision) for a, b in ((0, 7), (7, 20))]
    assert whole == [output for part in parts for output in plain(part)]
