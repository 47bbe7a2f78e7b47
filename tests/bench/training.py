"""Whole training runs of the engine against plain loops over the same networks.

The plain loop is what a person's own script does: data in memory as tensors, batches by random
indices, the same network's `train_step` (with its optimisers, gradient clipping and EMA), a loss
read every tenth step, one validation over the whole held-out split at the end, and the weights
saved. It has no validations on the way, previews, checkpoints or reports, which ours has.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.bench.bench import Bench
from tests.bench.measure import Measure, compare, seconds
from tests.bench.monitors import NullMonitor
from tests.bench.sources import images, text
from worker.data.dataset import TRAIN, LocalDataset
from worker.engine.run import Run, build_run
from worker.engine.train import Training, train
from worker.families import find_family
from worker.ingest.ingest import ingest
from worker.networks.network import Batch, Clock, Draw
from worker.specs import parse_params

STEPS, LONG, QUICK = 400, 4000, 50
CHECKPOINT_S = 5.0  # more often than by default, so that a short run has some
NANOGPT_CPU = {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch_size": 12}


def gpt_against_a_plain_loop(bench: Bench) -> Measure:
    """A small GPT at nanoGPT's settings for a CPU."""
    return against_a_plain_loop(bench, "gpt", steps=bench.size(STEPS, QUICK))


def long_gpt_against_a_plain_loop(bench: Bench) -> Measure:
    """The same for ten times the steps."""
    return against_a_plain_loop(bench, "gpt", steps=LONG)


def gan_against_a_plain_loop(bench: Bench) -> Measure:
    """A DCGAN of 28x28 images, at the family's defaults."""
    return against_a_plain_loop(bench, "gan", steps=bench.size(STEPS, QUICK))


def long_gan_against_a_plain_loop(bench: Bench) -> Measure:
    """The same for ten times the steps."""
    return against_a_plain_loop(bench, "gan", steps=LONG)


def against_a_plain_loop(bench: Bench, family: str, *, steps: int) -> Measure:
    """Steps a second of both, one thread each."""
    torch.set_num_threads(1)
    source = {"gpt": text, "gan": images}[family](bench.new_folder(family))
    dataset = add(source, bench.new_folder("dataset"))
    given = NANOGPT_CPU if family == "gpt" else {}
    request = partial(_training, bench, family, given, dataset=dataset, max_steps=steps)

    def ours() -> float:
        return steps / seconds(lambda: train(request(), NullMonitor()))

    def baseline() -> float:
        return steps / seconds(lambda: plain_loop(request()))

    name = f"{family} training, {steps} steps, EMA, curves and checkpoints on"
    return compare(name, "steps/s", ours, baseline, pairs=bench.pairs, at_least=0.95)


def add(source: Path, folder: Path) -> LocalDataset:
    """The data as `dataset add` writes them."""
    ingest(source, folder)
    return LocalDataset(folder)


def _training(
    bench: Bench, family: str, given: dict[str, Any], *, dataset: LocalDataset, **more: Any
) -> Training:
    kind = find_family(family)
    params = parse_params(kind.params, given, what=family)
    folder = bench.made_folder("run")
    return Training(kind, params, dataset, folder, checkpoint_every_s=CHECKPOINT_S, **more)


def plain_loop(training: Training) -> None:
    """Train, validate once, save the weights."""
    run = build_run(training)
    batches, steps = PlainBatches(run), training.budget.max_steps or 1
    run.network.train()
    for step in range(steps):
        clock = Clock(step, step / steps)
        losses = run.network.train_step(batches.next(step), run.parts.optimizers, clock)
        if step % 10 == 0:
            _ = [float(value) for value in losses.values()]
    run.network.eval()
    with torch.inference_mode():
        for batch in run.validation():
            run.network.validate(batch)
    torch.save(run.network.state_dict(), training.folder / "weights.pt")


class PlainBatches:
    """Random batches of data that are in memory as tensors."""

    def __init__(self, run: Run) -> None:
        training = run.training
        self.size = training.params.batch_size
        if training.family.media == "text":
            self.context: int = training.params.context  # type: ignore[attr-defined]  # gpt's
            self.data, self.labels = _stream(training.dataset), None
            return
        kept = np.asarray(training.dataset.array("split")) == TRAIN
        pixels = torch.from_numpy(np.asarray(training.dataset.array("images"))[kept])
        self.context = 0
        self.data = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1  # (N, C, H, W)
        self.labels = torch.from_numpy(np.asarray(training.dataset.array("labels"))[kept])

    def next(self, step: int) -> Batch:
        """The next batch; the network draws its noise as it always does."""
        draw = Draw([(1, step)])
        if self.labels is None:
            starts = torch.randint(len(self.data) - self.context - 1, (self.size,))
            places = starts[:, None] + torch.arange(self.context + 1)
            return Batch(self.data[places], None, draw)
        chosen = torch.randint(len(self.data), (self.size,))
        return Batch(self.data[chosen], self.labels[chosen], draw)


def _stream(dataset: LocalDataset) -> Tensor:
    """The training split's tokens, which the engine's feed has written beside the dataset."""
    (path,) = dataset.folder.glob(f"tokens-*-{TRAIN}.npy")
    stream = torch.from_numpy(np.load(path).astype(np.int64))
    return torch.maximum(stream, ~stream)
