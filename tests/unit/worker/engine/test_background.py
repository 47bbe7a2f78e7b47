import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from db.errors import Unreachable
from tests.families.kit import Recorder, image_dataset, small_training
from worker.engine.background import Background, NetworkCopy
from worker.engine.loop import Loop
from worker.engine.run import build_run, require_memory
from worker.engine.train import train
from worker.families import find_family


@pytest.fixture(autouse=True)
def _a_core_to_spare() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CPU = torch.device("cpu")
VAE = find_family("vae")


def test_tasks_run_one_at_a_time_and_in_order() -> None:
    background, done = Background(), list[int]()
    for number in range(5):
        background.run(lambda number=number: done.append(number))
    background.wait()
    background.close()
    assert done == [0, 1, 2, 3, 4]


def test_first_error_is_raised_later_and_drops_the_tasks_after_it() -> None:
    def fail() -> None:
        raise OSError("disk full")

    background, done = Background(), list[int]()
    background.run(fail)
    with pytest.raises(OSError, match="disk full"):
        background.wait()
    background.run(lambda: done.append(1))
    background.close()
    assert not done


def test_task_sees_the_weights_of_its_step_and_the_next_one_waits(tmp_path: Path) -> None:
    dataset = image_dataset(tmp_path / "dataset")
    network = build_run(small_training(VAE, dataset, tmp_path / "run")).network
    background, seen, may_end = Background(), list[float](), threading.Event()
    copy = NetworkCopy(network, CPU, background)
    weight = next(network.parameters())

    def look(copied: torch.nn.Module) -> None:
        may_end.wait(10)
        seen.append(float(next(copied.parameters()).detach().flatten()[0]))

    with torch.no_grad():
        weight.fill_(1.0)
        copy.run(look, step=1)
        weight.fill_(2.0)
        may_end.set()
        copy.run(look, step=2)
        weight.fill_(3.0)
    background.wait()
    background.close()
    assert seen == [1.0, 2.0]


def test_checkpoint_holds_the_step_at_which_it_was_asked_for(tmp_path: Path) -> None:
    dataset = image_dataset(tmp_path / "dataset")
    run = build_run(small_training(VAE, dataset, tmp_path / "run", max_steps=5))
    monitor = Recorder(keep=tmp_path)
    loop = Loop(run, monitor, require_memory(run, Recorder()))
    loop.step()
    loop.checkpoint()
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    loop.step()
    loop.background.wait()
    loop.background.close()
    ((step, path),) = monitor.checkpoints
    assert path is not None
    run.parts.restore(path, fingerprint=run.fingerprint)
    assert step == run.parts.state.step == 1
    assert all(torch.equal(v, before[name]) for name, v in run.network.state_dict().items())


def test_checkpoint_of_a_run_that_is_told_to_stop_waits_for_no_preview(tmp_path: Path) -> None:
    dataset = image_dataset(tmp_path / "dataset")
    run = build_run(small_training(VAE, dataset, tmp_path / "run", max_steps=5))
    monitor, may_end = Recorder(), threading.Event()
    loop = Loop(run, monitor, require_memory(run, Recorder()))
    loop.step()

    def preview() -> None:
        may_end.wait(60)

    loop.background.run(preview)
    loop.drain()
    assert [step for step, _ in monitor.checkpoints] == [1]
    may_end.set()
    loop.background.close()


def test_error_of_a_preview_ends_the_training(tmp_path: Path) -> None:
    class Away(Recorder):
        def preview(self, name: str, path: Path, media_type: str) -> None:
            raise Unreachable("the store is away")

    dataset = image_dataset(tmp_path / "dataset")
    asked = small_training(
        VAE, dataset, tmp_path / "run", params={"preview_every": 1}, max_steps=100
    )
    with pytest.raises(Unreachable, match="the store is away"):
        train(asked, Away())
