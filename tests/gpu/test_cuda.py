"""Every family on a CUDA device: training, resuming from a checkpoint, reproducible samples."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import Draining
from tests.families.kit import Recorder, base_for, dataset_for, make, plain, run, small_training
from worker.data.dataset import Shape
from worker.engine.generate import Generation, Sample, generate
from worker.engine.train import train
from worker.engine.weights import load
from worker.families import families
from worker.specs import parse_params

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]

DEVICE = torch.device("cuda:0")
ROOM = 128 * 2**20  # bytes left to the process in the out-of-memory test


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(families()))
def test_a_family_trains_and_its_samples_are_reproducible(
    name: str, precision: str, tmp_path: Path
) -> None:
    family = families()[name]
    dataset = dataset_for(family, tmp_path / "dataset")
    asked = {"max_steps": 5, "device": DEVICE, "precision": precision}
    trained = run(small_training(family, dataset, tmp_path / "run", **asked))
    network = load(trained.folder, device=DEVICE)[1]
    assert {weight.device for weight in network.parameters()} == {DEVICE}
    whole = plain(make(family, network, 0, 20, precision=precision))
    parts = [make(family, network, a, b, precision=precision) for a, b in ((0, 7), (7, 20))]
    assert whole == [output for part in parts for output in plain(part)]
    again = load(trained.folder, device=DEVICE)[1]
    assert plain(make(family, again, 3, 5, precision=precision)) == whole[3:5]


@pytest.mark.parametrize("name", sorted(families()))
def test_a_family_resumes_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    family = families()[name]
    dataset = dataset_for(family, tmp_path / "dataset")
    asked = {"max_steps": 6, "seed": 4, "device": DEVICE}
    straight = run(small_training(family, dataset, tmp_path / "straight", **asked))
    monitor = Recorder(drain_at=3, keep=tmp_path)
    with pytest.raises(Draining):
        train(small_training(family, dataset, tmp_path / "first", **asked), monitor)
    [(step, checkpoint)] = monitor.checkpoints
    assert step == 3
    asked["resume"] = checkpoint
    resumed = run(small_training(family, dataset, tmp_path / "second", **asked))
    assert resumed.metrics["loss"] == pytest.approx(straight.metrics["loss"], rel=0.01)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A GPU with `ROOM` bytes left for this process."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(DEVICE)[1]
    taken = torch.cuda.memory_reserved(DEVICE)
    torch.cuda.set_per_process_memory_fraction((taken + ROOM) / total, DEVICE)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_noise(little_memory: None) -> None:
    family = families()["gan"]
    torch.manual_seed(0)
    params = parse_params(family.params, {}, what="gan")
    network = family.network()(params, Shape("image", size=64, channels=3)).to(DEVICE)

    def made(micro_batch: int, monitor: Recorder) -> list[Sample]:
        sampling = parse_params(family.sampling, {"micro_batch": micro_batch}, what="gan")
        return list(generate(Generation(network, sampling, 3, 0, 8), monitor))

    monitor = Recorder()
    halved, few = made(1024, monitor), made(8, Recorder())
    assert len({sample.micro_batch for sample in halved}) == 1
    assert 8 <= halved[0].micro_batch < 1024
    assert monitor.logs[0] == "warning: out of memory: going on with micro-batches of 512"
    for one, other in zip(halved, few, strict=True):  # another shape, so equal but for rounding
        assert np.abs(np.asarray(one.output, int) - np.asarray(other.output, int)).max() <= 2


def test_qlora_fine_tunes_a_four_bit_base_and_generates_with_it(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    family = families()["hf"]
    dataset = dataset_for(family, tmp_path / "dataset")
    asked = {"params": {"base": "nf4"}, "max_steps": 20, "device": DEVICE, "precision": "bf16"}
    training = small_training(family, dataset, tmp_path / "run", parent=base_for(dataset), **asked)
    monitor = Recorder()
    trained = run(training, monitor)
    losses = [value for _, value in monitor.curves["train/loss"]]
    assert losses[-1] < losses[0]
    network = load(trained.folder, device=DEVICE)[1]
    assert torch.uint8 in {weight.dtype for weight in network.base.model.parameters()}
    assert {weight.dtype for weight in network.lora} == {torch.float32}
    whole = plain(make(family, network, 0, 5, precision="bf16"))
    assert plain(make(family, network, 3, 5, precision="bf16")) == whole[3:]
