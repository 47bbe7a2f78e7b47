"""Pictures of a dataset's items, as a judge looks at them, and which items are chosen."""

from dataclasses import dataclass

import numpy as np

from worker.data.dataset import TEST, TRAIN, VALIDATION, LocalDataset, Shape
from worker.evaluation.judge import Labels, Pixels
from worker.media import find_medium
from worker.metrics.samples import Indices, generator

CODES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
MAX_TRAIN = 60_000  # training items that made ones are compared with


@dataclass(frozen=True)
class Items:
    """Items of one dataset: their pictures, and labels if there are any."""

    numbers: Indices  # in the dataset
    pixels: Pixels
    labels: Labels | None

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self, count: int) -> "Items":
        """The first of the items."""
        labels = None if self.labels is None else self.labels[:count]
        return Items(self.numbers[:count], self.pixels[:count], labels)


def choose(dataset: LocalDataset, split: str, *, most: int, seed: int) -> Indices:
    """At most `most` items of a split, in an order that depends on the seed alone."""
    found = np.flatnonzero(np.asarray(dataset.array("split")) == CODES[split])
    return found[generator(seed, CODES[split]).permutation(len(found))[:most]]


def read_items(dataset: LocalDataset, numbers: Indices) -> Items:
    """The pictures and labels of items, in the order of their numbers."""
    shape = shape_of(dataset)
    labels = np.asarray(dataset.array("labels"))[numbers] if shape.labels else None
    medium = find_medium(shape.media)
    samples = medium.outputs(dataset, numbers.tolist())
    return Items(numbers, medium.pictures(samples, shape), labels)


def shape_of(dataset: LocalDataset) -> Shape:
    """The shape of a dataset's items, of any medium."""
    return Shape.from_json(dataset.manifest["shape"])
