import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from db.errors import Cancelled, Draining, NonFinite, NothingToKeep, Refused
from tests.families.kit import (
    Recorder,
    image_dataset,
    make,
    plain,
    small_training,
    text_dataset,
    train_small,
)
from worker.data.dataset import LocalDataset
from worker.engine.loop import Loop
from worker.engine.run import build_run, require_memory
from worker.engine.train import train
from worker.engine.weights import load
from worker.families import find_family

CPU = torch.device("cpu")
GAN, VAE, GPT = find_family("gan"), find_family("vae"), find_family("gpt")


@pytest.fixture
def dataset(tmp_path: Path) -> LocalDataset:
    return image_dataset(tmp_path / "dataset")


def test_budget_in_seconds_ends_the_training(dataset: LocalDataset, tmp_path: Path) -> None:
    monitor = Recorder()
    trained = train(small_training(VAE, dataset, tmp_path / "run", max_seconds=0.5), monitor)
    assert trained.steps >= 1
    assert trained.metrics["seconds"] >= 0.5
    done, total, unit, eta_s = monitor.told[-1]
    assert (done, total, unit, eta_s) == (0.5, 0.5, "s", 0.0)


def test_looks_along_the_way_take_a_part_of_the_split_and_the_end_all_of_it(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    asked = small_training(VAE, dataset, tmp_path / "a", params={"batch_size": 2}, max_steps=2)
    run = build_run(asked)
    whole, part = list(run.validation()), list(run.validation(whole=False))
    assert (len(whole), len(part)) == (16, 4)
    assert all(torch.equal(some.data, whole[4 * i].data) for i, some in enumerate(part))

    monitor = Recorder()
    again = small_training(VAE, dataset, tmp_path / "b", params={"batch_size": 2}, max_steps=2)
    trained = train(again, monitor)
    network = load(trained.folder, device=CPU)[1]
    with torch.inference_mode():
        losses = [float(network.validate(batch)["loss"]) for batch in whole]
    assert trained.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert monitor.curves["validation/loss"][-1][1] != trained.metrics["loss"]


def test_looks_along_the_way_take_few_rows_where_steps_between_have_few(tmp_path: Path) -> None:
    texts = text_dataset(tmp_path / "texts")
    rows = [{"split": 0, "text": "to and fro. " * 9}, {"split": 1, "text": "to and fro. " * 4000}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (texts.folder / "documents.jsonl").write_text(lines, "utf-8")

    def parts(folder: str, **given: int) -> int:
        params = {"batch_size": 2, "context": 16} | given
        asked = small_training(GPT, texts, tmp_path / folder, params=params, max_steps=100)
        return len(list(build_run(asked).validation(whole=False)))

    assert parts("few") == 1
    assert parts("many", batch_size=400) == 4
    assert parts("asked", validate_every=50) == 4


def test_training_tells_progress_at_every_step(dataset: LocalDataset, tmp_path: Path) -> None:
    monitor = Recorder()
    train(small_training(VAE, dataset, tmp_path / "run", max_steps=4), monitor)
    steps = dict.fromkeys(told[:3] for told in monitor.told)  # the validation tells some again
    assert list(steps) == [(step, 4, "steps") for step in (1, 2, 3, 4)]
    assert monitor.told[-1][3] == 0


def test_curves_and_previews_come_while_the_training_goes_on(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    monitor = Recorder()
    every = {"validate_every": 4, "preview_every": 5}
    asked = small_training(VAE, dataset, tmp_path / "run", params=every, max_steps=12)
    trained = train(asked, monitor)
    assert [step for step, _ in monitor.curves["train/loss"]] == list(range(1, 13))
    assert [step for step, _ in monitor.curves["validation/loss"]] == [4, 8, 12]
    assert [name for name, _, _ in monitor.previews] == [
        "samples-0000005.png",
        "samples-0000010.png",
    ]
    assert [(name, media) for name, _, media in trained.reports] == [
        ("samples.png", "image/png"),
        ("losses.png", "image/png"),
    ]
    for bytes_ in [monitor.previews[0][1], *(path.read_bytes() for _, path, _ in trained.reports)]:
        with Image.open(BytesIO(bytes_)) as picture:
            assert picture.width > 100


def test_long_run_has_no_more_points_than_a_curve_needs(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    monitor = Recorder()
    params = {"batch_size": 2}
    train(small_training(VAE, dataset, tmp_path / "run", params=params, max_steps=250), monitor)
    steps = [step for step, _ in monitor.curves["train/loss"]]
    assert len(steps) == 200
    assert steps[-1] == 250


def test_text_previews_are_texts(tmp_path: Path) -> None:
    monitor = Recorder()
    asked = small_training(
        GPT,
        text_dataset(tmp_path / "texts"),
        tmp_path / "run",
        params={"preview_every": 1},
        max_steps=2,
    )
    trained = train(asked, monitor)
    name, content, media = monitor.previews[0]
    assert (name, media) == ("samples-0000001.txt", "text/plain")
    assert content.decode("utf-8").strip()
    assert "tokenizer.json" in {path.name for path in trained.files}


def test_best_weights_are_kept_where_the_loss_means_much(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    monitor = Recorder()
    # a rate that leads astray, so that the last weights are not the best
    params = {"validate_every": 2, "lr": 0.05}
    asked = small_training(VAE, dataset, tmp_path / "run", params=params, max_steps=40)
    trained = train(asked, monitor)
    losses = {step: value for step, value in monitor.curves["validation/loss"]}
    best = min(losses, key=lambda step: losses[step])
    assert trained.metrics["kept_step"] == best
    assert trained.metrics["loss"] == losses[best]


def test_run_that_goes_to_nan_is_given_up_and_writes_no_weights(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    run = build_run(small_training(VAE, dataset, tmp_path / "run"))
    measured = require_memory(run, Recorder())
    with torch.no_grad():
        for parameter in run.network.parameters():
            parameter.fill_(torch.nan)
    loop = Loop(run, Recorder(), measured)
    with pytest.raises(NonFinite, match=r"is nan at step 1.*lower lr"):
        loop.step()
    loop.checkpoint()
    with pytest.raises(NonFinite):
        loop.background.wait()
    loop.background.close()
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_draining_stores_a_checkpoint_first(dataset: LocalDataset, tmp_path: Path) -> None:
    monitor = Recorder(drain_at=3)
    with pytest.raises(Draining):
        train(small_training(VAE, dataset, tmp_path / "run", max_steps=9), monitor)
    assert [step for step, _ in monitor.checkpoints] == [3]


class CancelledAt(Recorder):
    """A monitor whose job is cancelled after some steps."""

    def __init__(self, step: int, keep: Path) -> None:
        super().__init__(keep=keep)
        self.step = step

    def progress(self, done: float, total: float, unit: str, **more: Any) -> None:
        super().progress(done, total, unit, **more)
        if done >= self.step:
            raise Cancelled


@pytest.mark.parametrize("family", [VAE, GAN])
def test_a_cancelled_run_leaves_a_checkpoint_from_which_a_retry_ends_the_same(
    dataset: LocalDataset, tmp_path: Path, family: Any
) -> None:
    asked = {"max_steps": 6, "seed": 2}
    straight = train_small(family, dataset, tmp_path / "a", **asked)
    monitor = CancelledAt(4, tmp_path)
    with pytest.raises(Cancelled):
        train(small_training(family, dataset, tmp_path / "b", **asked), monitor)
    [(step, left)] = monitor.checkpoints
    assert step == 4
    resumed = train_small(family, dataset, tmp_path / "c", resume=left, **asked)
    assert resumed.files[0].read_bytes() == straight.files[0].read_bytes()


def test_a_run_that_is_cancelled_while_it_finishes_leaves_none(
    dataset: LocalDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: Any, **__: Any) -> None:
        raise Cancelled

    monkeypatch.setattr("worker.engine.train.last_page", cancelled)
    monitor = Recorder()
    with pytest.raises(Cancelled):
        train(small_training(VAE, dataset, tmp_path / "run", max_steps=3), monitor)
    assert monitor.checkpoints == []


def test_what_prevents_the_last_checkpoint_hides_no_cancellation(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    monitor = CancelledAt(2, tmp_path / "nowhere")  # it cannot write there
    with pytest.raises(Cancelled):
        train(small_training(VAE, dataset, tmp_path / "run", max_steps=9), monitor)


def test_a_run_that_ends_early_keeps_its_best_weights(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    monitor = Recorder(keep=tmp_path)

    asked = small_training(VAE, dataset, tmp_path / "run", max_steps=50)
    trained = train(replace(asked, ends_early=lambda done: done >= 5), monitor)
    assert trained.metrics["ended_early"] is True
    assert trained.metrics["steps"] == trained.steps == 5
    assert "loss" in trained.metrics
    [(step, left)] = monitor.checkpoints
    assert step == 5
    assert "info: ending early after step 5, and keeping the best weights" in monitor.logs

    # whoever goes on after a worker that died meanwhile makes the same version
    again = replace(asked, folder=tmp_path / "again", resume=left, ends_early=lambda _: True)
    resumed = train(again, Recorder())
    assert resumed.files[0].read_bytes() == trained.files[0].read_bytes()
    assert resumed.metrics["ended_early"] is True


def test_a_run_told_to_end_at_its_end_has_not_ended_early(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    monitor = Recorder()
    asked = small_training(VAE, dataset, tmp_path / "run", max_steps=3)
    trained = train(replace(asked, ends_early=lambda done: done >= 3), monitor)
    assert "ended_early" not in trained.metrics


def test_a_run_without_a_step_has_nothing_to_keep(dataset: LocalDataset, tmp_path: Path) -> None:
    asked = small_training(VAE, dataset, tmp_path / "run", max_steps=3)
    with pytest.raises(NothingToKeep, match="before its first step"):
        train(replace(asked, ends_early=lambda _: True), Recorder())


def test_checkpoints_come_as_often_as_asked(dataset: LocalDataset, tmp_path: Path) -> None:
    monitor = Recorder()
    always = {"max_steps": 3, "checkpoint_every_s": 0.0}
    train(small_training(VAE, dataset, tmp_path / "run", **always), monitor)
    assert [step for step, _ in monitor.checkpoints] == [1, 2, 3]


def test_run_resumed_at_its_end_only_finishes(dataset: LocalDataset, tmp_path: Path) -> None:
    asked = {"max_steps": 5, "seed": 2}
    straight = train_small(VAE, dataset, tmp_path / "a", **asked)
    monitor = Recorder(drain_at=5, keep=tmp_path)
    with pytest.raises(Draining):
        train(small_training(VAE, dataset, tmp_path / "b", **asked), monitor)
    resumed = train_small(VAE, dataset, tmp_path / "c", resume=monitor.checkpoints[0][1], **asked)
    assert resumed.files[0].read_bytes() == straight.files[0].read_bytes()


def test_same_seed_trains_the_same_weights_and_another_seed_others(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    weights = [
        train_small(GAN, dataset, tmp_path / str(i), max_steps=2, seed=seed).files[0].read_bytes()
        for i, seed in enumerate((1, 1, 2))
    ]
    assert weights[0] == weights[1] != weights[2]


def test_finetuning_on_fewer_labels_keeps_the_parent_s_numbers(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    parent = train_small(VAE, dataset, tmp_path / "parent", max_steps=2).folder
    discs = image_dataset(tmp_path / "discs", labels=("disc",))
    run = build_run(small_training(VAE, discs, tmp_path / "run", parent=parent, max_steps=1))
    labels = run.batch(0).labels
    assert labels is not None
    assert set(labels.tolist()) == {1}
    assert run.network.shape.labels == ("bar", "disc")


def test_finetuning_on_data_that_does_not_fit_is_refused(
    dataset: LocalDataset, tmp_path: Path
) -> None:
    parent = train_small(VAE, dataset, tmp_path / "parent", max_steps=1).folder
    larger = image_dataset(tmp_path / "larger", size=28)
    with pytest.raises(Refused, match="size is 28; the parent version's is 12"):
        build_run(small_training(VAE, larger, tmp_path / "a", parent=parent))
    strange = image_dataset(tmp_path / "strange", labels=("bar", "ring"))
    with pytest.raises(Refused, match=r"labels \['ring'\]; it knows: bar, disc"):
        build_run(small_training(VAE, strange, tmp_path / "b", parent=parent))
    with pytest.raises(Refused, match="the parent is a vae, not a gan"):
        build_run(small_training(GAN, dataset, tmp_path / "c", parent=parent))


def test_dataset_without_validation_items_still_trains(tmp_path: Path) -> None:
    dataset = image_dataset(tmp_path / "dataset")
    np.save(dataset.folder / "split.npy", np.zeros(96, np.uint8))
    trained = train_small(VAE, dataset, tmp_path / "run", max_steps=2)
    assert "loss" not in trained.metrics
    assert trained.metrics["steps"] == 2


def test_bf16_trains_and_makes(dataset: LocalDataset, tmp_path: Path) -> None:
    trained = train_small(GAN, dataset, tmp_path / "run", max_steps=2, precision="bf16")
    network = load(trained.folder, device=CPU)[1]
    halves = plain(make(GAN, network, 0, 7, precision="bf16"))
    assert plain(make(GAN, network, 0, 20, precision="bf16"))[:7] == halves
