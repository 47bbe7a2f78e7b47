"""What a version takes over from the one that it updates: labels and their numbers."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import BadInput
from worker.data.dataset import LocalDataset
from worker.data.split import Codes
from worker.media.sources.layout import sort_labels

Labels = tuple[str, ...]


def merge_labels(parent: LocalDataset, labels: Labels) -> tuple[Labels, dict[int | None, int]]:
    """The parent's labels, which keep their numbers, and the new ones after them.

    The mapping is from the numbers of `labels` to those of all.
    """
    old: Labels = tuple(parent.manifest["labels"])
    if bool(old) != bool(labels):
        has, lacks = ("version has", "new items") if old else ("new items have", "version")
        raise BadInput(
            f"the {has} labels, and the {lacks} none",
            remedy="label all items, or add the new ones as another dataset",
        )
    merged = (*old, *(each for each in sort_labels(labels) if each not in set(old)))
    numbers = {label: number for number, label in enumerate(merged)}
    return merged, {number: numbers[label] for number, label in enumerate(labels)}


def labels_of(parent: LocalDataset) -> Iterator[int | None]:
    """The number of each item's label, or nothing without end if there are no labels."""
    if not parent.manifest["labels"]:
        return itertools.repeat(None)
    return (int(label) for label in parent.array("labels"))


def write_labels(
    folder: Path, labels: Labels, numbers: npt.NDArray[np.int64] | None, codes: Codes
) -> Labels:
    """Write `split.npy` and, if labelled, `labels.npy`; return the labels in use."""
    np.save(folder / "split.npy", codes)
    if numbers is None:
        return ()
    used, renumbered = np.unique(numbers, return_inverse=True)
    np.save(folder / "labels.npy", renumbered.astype(np.int64))
    return tuple(labels[each] for each in used)
