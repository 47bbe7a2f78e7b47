"""Building the judge of a dataset, and how well it does its own task on held-out items."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from db.errors import BadInput, NotSupportedHere
from worker.data.dataset import LocalDataset
from worker.engine.device_errors import raise_of_device
from worker.engine.tensors import read_tensors
from worker.evaluation import judge
from worker.evaluation.pictures import MAX_TRAIN, Items, choose, read_items
from worker.evaluation.stages import Stage
from worker.networks.image_model import ImageModel

HELD_OUT = 5_000  # items that a judge is tried on, at most
FITTED = 10_000  # training items that a pretrained model is fitted to, at most
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
    items = _training_items(dataset, most=MAX_TRAIN)
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


def fit_judge(
    dataset: LocalDataset, source: ImageModel, path: Path, *, device: torch.device, stage: Stage
) -> dict[str, Any]:
    """Fit a pretrained image model to a dataset as its judge, and write it to `path`.

    Returns `kept`, the share of the variance of the model's features, and with labels the
    `accuracy` on held-out items. Raises `BadInput` for a folder that holds no image model.
    """
    from worker.evaluation import pretrained  # noqa: PLC0415 - loads transformers

    items = _training_items(dataset, most=FITTED)
    fitting, trying = stage.part("fitting the judge", 0, 0.7), stage.part("trying it", 0.7, 1)
    network, kept = pretrained.fit(
        source,
        items.pixels,
        items.labels,
        classes=len(dataset.manifest["shape"]["labels"]),
        device=device,
        tick=fitting.tick,
    )
    metrics = {} if items.labels is None else _try(network, _held_out(dataset), trying)
    pretrained.save(network, path)
    return metrics | {"kept": round(kept, 4), "items": len(items), "device": device.type}


def load_judge(path: Path, device: torch.device) -> judge.Judge:
    """Read a judge's file. Raises `BadInput` where it is damaged.

    Raises `NotSupportedHere` for a judge of another form than this Genmill builds.
    """
    tensors, about = read_tensors(path)
    try:
        network = _of_form(about["form"])
        network.load_state_dict(tensors)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise_of_device(error)
        complaint = " ".join(str(error).split())[:300]
        raise NotSupportedHere(
            f"another genmill trained the judge, and it does not fit here: {complaint}",
            remedy="use that one, or add the dataset again to have a new judge",
        ) from error
    return network.to(device).eval()


def _of_form(form: Any) -> judge.Judge:
    if not isinstance(form, dict):
        return judge.JudgeNetwork(*form)
    from worker.evaluation import pretrained  # noqa: PLC0415 - loads transformers

    return pretrained.of_form(form)


def _training_items(dataset: LocalDataset, *, most: int) -> Items:
    chosen = choose(dataset, "train", most=most, seed=judge.SEED)
    if not len(chosen):
        raise BadInput("the dataset has no training items to train a judge on")
    return read_items(dataset, np.sort(chosen))


def _held_out(dataset: LocalDataset) -> Items:
    found = (choose(dataset, split, most=HELD_OUT, seed=judge.SEED) for split in SPLITS)
    return read_items(dataset, next(chosen for chosen in found if len(chosen)))


def _try(network: judge.Judge, items: Items, stage: Stage) -> dict[str, Any]:
    if items.labels is not None or not isinstance(network, judge.JudgeNetwork):
        right = judge.look(network, items.pixels, stage.tick).labels == items.labels
        return {"accuracy": round(float(right.mean()), 4), "held_out": len(items)}
    explained = judge.explained_variance(network, items.pixels, stage.tick)
    return {"explained": round(explained, 4), "held_out": len(items)}
