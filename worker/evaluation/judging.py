"""Training the judge of a dataset, and how well it does its own task on held-out items."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from db.errors import BadInput
from worker.data.dataset import LocalDataset
from worker.evaluation import judge
from worker.evaluation.pictures import MAX_TRAIN, Items, choose, read_items
from worker.evaluation.stages import Stage

HELD_OUT = 5_000  # items that a judge is tried on, at most
SPLITS = ("validation", "test", "train")  # the first that has items


def recipe_of(dataset: LocalDataset) -> str:
    """How a dataset's judge is built: it has one judge a recipe."""
    return "own-cnn" if dataset.manifest["shape"]["labels"] else "own-autoencoder"


def train_judge(
    dataset: LocalDataset, path: Path, *, device: torch.device, stage: Stage
) -> dict[str, Any]:
    """Train a judge, write it to `path`, and return how well it does on held-out items.

    `accuracy` of a classifier; `explained`, the share of the variance of pixels that is restored,
    of the others. Raises `BadInput` where there is nothing to train on.
    """
    chosen = choose(dataset, "train", most=MAX_TRAIN, seed=judge.SEED)
    if not len(chosen):
        raise BadInput("the dataset has no training items to train a judge on")
    items = read_items(dataset, np.sort(chosen))
    training, trying = stage.part("training the judge", 0, 0.9), stage.part("trying it", 0.9, 1)
    network = judge.train(
        items.pixels,
        items.labels,
        classes=len(dataset.manifest["shape"]["labels"]),
        device=device,
        tick=training.tick,
        steps=judge.STEPS,
    )
    judge.set_scale(network, items.pixels[:HELD_OUT])
    metrics = _try(network, _held_out(dataset), trying)
    _, height, width, _ = items.pixels.shape
    judge.save(network, path, height=height, width=width)
    return metrics | {"steps": judge.STEPS, "items": len(items), "device": device.type}


def _held_out(dataset: LocalDataset) -> Items:
    found = (choose(dataset, split, most=HELD_OUT, seed=judge.SEED) for split in SPLITS)
    return read_items(dataset, next(chosen for chosen in found if len(chosen)))


def _try(network: judge.JudgeNetwork, items: Items, stage: Stage) -> dict[str, Any]:
    if items.labels is not None:
        right = judge.look(network, items.pixels, stage.tick).labels == items.labels
        return {"accuracy": round(float(right.mean()), 4), "held_out": len(items)}
    explained = judge.explained_variance(network, items.pixels, stage.tick)
    return {"explained": round(explained, 4), "held_out": len(items)}
