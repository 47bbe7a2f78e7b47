"""What the training loop costs over a loop that does nothing but train."""

import time
from pathlib import Path

import torch

from tests.bench.measure import Measure
from tests.bench.monitors import NullMonitor
from worker.data.dataset import LocalDataset
from worker.engine.run import begin
from worker.engine.train import Training, train
from worker.families import find_family
from worker.ingest.ingest import ingest
from worker.networks.network import Clock
from worker.specs import parse_params

STEPS, TURNS = 400, 3
NANOGPT_CPU = {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch_size": 12}


def gpt_against_a_plain_loop(folder: Path) -> Measure:
    """The engine's steps (curves, previews and validation included) against the network's own."""
    dataset = text_dataset(folder)
    ours, base = [], []
    for turn in range(TURNS):
        began = time.perf_counter()
        train(gpt_training(dataset, folder / f"ours{turn}"), NullMonitor())
        ours.append(time.perf_counter() - began)
        base.append(plain_loop(gpt_training(dataset, folder / f"plain{turn}")))
    name = f"gpt training, {STEPS} steps at nanoGPT's CPU setting"
    return Measure(name, min(ours), min(base), "s", min(ours) / min(base), at_most=1.3)


def text_dataset(folder: Path) -> LocalDataset:
    """Python's own documentation as a text dataset."""
    from pydoc_data.topics import topics

    source = folder / "topics.txt"
    source.write_text("\n\n".join(topics.values()), "utf-8")
    ingest(source, folder / "dataset")
    return LocalDataset(folder / "dataset")


def gpt_training(dataset: LocalDataset, folder: Path) -> Training:
    """A training of `STEPS` steps."""
    folder.mkdir()
    family = find_family("gpt")
    params = parse_params(family.params, NANOGPT_CPU, what="gpt")
    return Training(family, params, dataset, folder, seed=1, max_steps=STEPS)


def plain_loop(training: Training) -> float:
    """Seconds of the same steps and one final validation with nothing around them."""
    began = time.perf_counter()
    run = begin(training)
    run.network.train()
    for step in range(STEPS):
        run.network.train_step(run.batch(step), run.parts.optimizers, Clock(step, step / STEPS))
    run.network.eval()
    with torch.inference_mode():
        for batch in run.validation():
            run.network.validate(batch)
    return time.perf_counter() - began
