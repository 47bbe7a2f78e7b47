"""How well a version predicts held-out data: its own validation, item by item.

An item is a row of the family's validation: a window of a text, a packed row of examples, a window
of a sound. Rows are computed one by one, so that no row's number depends on its neighbours.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from worker.data.dataset import TRAIN, VALIDATION, LocalDataset
from worker.engine.device import autocast
from worker.engine.losses import to_numbers
from worker.evaluation.pictures import CODES
from worker.evaluation.request import Request
from worker.evaluation.stages import Stage
from worker.feeds.feed import Arrays, Feed
from worker.networks.network import Batch, Draw
from worker.networks.version_folder import CONFIG, WEIGHTS_SUFFIX

MAX_ROWS = 2_000
FEW_ITEMS = 64  # training items, which a feed needs to be built
FEW_CHARACTERS = 20_000  # of each of them
NO_SPLIT = 255


class Losses(NamedTuple):
    """One value a row: nats, items predicted, and their characters if the family counts them."""

    nll: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    characters: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class HeldOut(LocalDataset):
    """A dataset whose validation split is one of `whole`, beside a few items to train on.

    Feeds of networks keep files in `folder`.
    """

    whole: LocalDataset
    split: str

    def array(self, name: str) -> npt.NDArray[Any]:
        """See `LocalDataset.array`; the splits are those of this view."""
        array = self.whole.array(name)
        if name != "split":
            return array
        splits = np.full(len(array), NO_SPLIT, np.uint8)
        splits[np.flatnonzero(np.asarray(array) == TRAIN)[:FEW_ITEMS]] = TRAIN
        splits[np.asarray(array) == CODES[self.split]] = VALIDATION
        return splits

    def documents(self, split: int) -> Iterator[dict[str, Any]]:
        """See `LocalDataset.documents`."""
        if split == VALIDATION:
            yield from self.whole.documents(CODES[self.split])
        elif split == TRAIN:
            for place, row in enumerate(self.whole.documents(TRAIN)):
                if place == FEW_ITEMS:
                    return
                yield {name: _shortened(value) for name, value in row.items()}


def held_out_losses(request: Request, stage: Stage) -> Losses:
    """The losses of the protocol's split; of evenly spaced rows where there are many."""
    feed = _feed(request)
    total = sum(len(data) for data, _ in feed.validation())
    chosen = set(np.linspace(0, total - 1, min(total, MAX_ROWS)).astype(int).tolist())
    found = []
    for place, arrays in enumerate(_rows(feed)):
        if place in chosen:
            found.append(_losses(request, arrays, place))
            stage.tick(len(found), len(chosen))
    nll, tokens, characters = (np.array(values) for values in zip(*found, strict=True))
    return Losses(nll, tokens, characters if characters.min(initial=1) > 0 else None)


def _feed(request: Request) -> Feed:
    """The family's feed of the held-out data, with the version's own tokenizer and the like."""
    folder, files = request.folder / "held-out", request.folder / "files"
    folder.mkdir()
    files.mkdir()
    shutil.copyfile(request.dataset.folder / "manifest.json", folder / "manifest.json")
    for path in sorted(request.files.iterdir()):
        if path.suffix != WEIGHTS_SUFFIX and path.name != CONFIG:
            shutil.copyfile(path, files / path.name)
    data = HeldOut(folder, request.dataset, request.protocol.split)
    network = request.network
    return type(network).feed(network.params, data, seed=request.protocol.seed, files=files)


def _rows(feed: Feed) -> Iterator[Arrays]:
    for data, labels in feed.validation():
        for row in range(len(data)):
            yield data[row : row + 1], None if labels is None else labels[row : row + 1]


def _losses(request: Request, arrays: Arrays, place: int) -> tuple[float, int, int]:
    data, labels = arrays
    network = request.network
    device = next(network.parameters()).device
    if labels is not None:
        labels = _network_labels(request, labels)
    batch = Batch(
        torch.from_numpy(data).to(device),
        None if labels is None else torch.from_numpy(labels).to(device),
        Draw([(request.protocol.seed, place)], device),
    )
    with torch.inference_mode(), autocast(device, request.protocol.precision):
        (losses,) = to_numbers([network.validate(batch)])
    count = losses.get("count", _predicted(data))
    nll = losses["loss"] * count
    per_character = losses.get("nats_per_character", 0.0)
    return nll, round(count), round(nll / per_character) if per_character else 0


def _predicted(data: npt.NDArray[Any]) -> float:
    """How many items of a row are predicted: `~t` is context only, and NaN is missing."""
    if data.dtype.kind == "f":
        return float((~np.isnan(data[..., 0])).sum())
    return float((data[:, 1:] >= 0).sum())


def _network_labels(request: Request, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    known, names = request.network.shape.labels, request.dataset.manifest["shape"]["labels"]
    return np.array([known.index(names[label]) for label in labels], np.int64)


def _shortened(value: Any) -> Any:
    """At most `FEW_CHARACTERS` of a text, cut after a line."""
    if not isinstance(value, str) or len(value) <= FEW_CHARACTERS:
        return value
    head = value[:FEW_CHARACTERS]
    return head[: head.rfind("\n") + 1] or head
