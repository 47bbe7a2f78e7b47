"""What work takes of a device's memory, known before it starts."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from db.errors import GenmillError, Refused, ShortOfMemory, TooLarge
from tests.families.kit import Recorder, dataset_for, small_training
from worker.engine import memory
from worker.engine.run import build_run
from worker.engine.train import train
from worker.families import families

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["gan", "gpt", "vae"])
def test_memory_of_a_full_batch_is_extrapolated_from_few_rows(name: str, tmp_path: Path) -> None:
    family = families()[name]
    run = build_run(
        small_training(family, dataset_for(family, tmp_path / "data"), tmp_path / "run")
    )
    batch = run.batch(0)
    estimate = memory.footprint(run.network, batch, precision="fp32")
    fixed, per_row = estimate.step.T
    taken = memory._step_bytes(run.network, batch).max()
    assert taken > 100_000
    assert (fixed + len(batch.data) * per_row).max() == pytest.approx(taken, rel=0.02)


def test_measuring_changes_nothing(tmp_path: Path) -> None:
    family = families()["gan"]
    run = build_run(
        small_training(family, dataset_for(family, tmp_path / "data"), tmp_path / "run")
    )
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    memory.footprint(run.network, run.batch(0), precision="fp32")
    after = run.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_memory_of_freed_tensors_is_not_counted() -> None:
    with memory.AllocationTrace() as allocated:
        for _ in range(5):
            torch.zeros(1000)
        kept = torch.ones(500)
    assert max(allocated.trace) == 4000
    assert allocated.current_bytes == kept.nbytes == 2000


def test_network_larger_than_any_machine_is_refused_with_both_numbers(tmp_path: Path) -> None:
    family = families()["gpt"]
    if memory.free_bytes(CPU) > 200e9:
        pytest.skip("this machine has room for the largest gpt")
    sizes = {"layers": 64, "width": 4096, "heads": 64}
    asked = small_training(family, dataset_for(family, tmp_path / "data"), tmp_path, params=sizes)
    with pytest.raises(Refused, match=r"this gpt needs about \d+.\d GB of memory; cpu"):
        build_run(asked)


def test_batch_that_cannot_fit_is_refused_with_the_remedy() -> None:
    with pytest.raises(TooLarge, match=r"needs about 1152921504.6 GB .* in all; take fewer"):
        memory.require(2**60, CPU, what="this", remedy="take fewer")


@pytest.mark.parametrize(
    ("needed", "raised"), [(3, None), (5, ShortOfMemory), (8, ShortOfMemory), (9, TooLarge)]
)
def test_what_others_hold_now_is_not_what_the_machine_never_has(
    needed: int, raised: type[GenmillError] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    memory.MEMINFO.write_text("MemTotal: 16 kB\nMemAvailable: 4 kB\n")
    (tmp_path / "memory.max").write_text(f"{8 * 1024}\n")  # a container's limit
    with pytest.raises(raised) if raised else nullcontext():
        memory.require(needed * 1024, CPU, what="this", remedy="take fewer")


def test_a_run_logs_the_memory_that_it_needs(tmp_path: Path) -> None:
    family = families()["vae"]
    data, monitor = dataset_for(family, tmp_path / "data"), Recorder()
    trained = train(small_training(family, data, tmp_path / "run", max_steps=1), monitor)
    assert any("needs about" in line and "MB of memory on cpu" in line for line in monitor.logs)
    assert trained.metrics["row_bytes"] > 0


def test_free_memory_is_at_most_the_machine_s() -> None:
    fields = memory.MEMINFO.read_text().splitlines()[0].split()
    assert 0 < memory.free_bytes(CPU) <= int(fields[1]) * 1024


def test_peak_may_move_to_another_allocation_with_more_rows() -> None:
    trace = np.array([[100, 0], [10, 5]])
    footprint = memory.Footprint(0, trace, trace)
    assert footprint.training_bytes(2) == int(1.2 * 100)
    assert footprint.training_bytes(100) == int(1.2 * 510)
