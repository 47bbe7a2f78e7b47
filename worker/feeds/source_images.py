"""The images of a dataset from which samples are made. No torch here."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from worker.data.dataset import TEST, TRAIN, VALIDATION, LocalDataset


class SourceImages:
    """The images of one split, repeated in order.

    The split is the first that is not empty of test, validation and training, so that images which
    the network was trained on come last. `labels` are the network's classes.
    """

    def __init__(self, dataset: LocalDataset, labels: Sequence[str]) -> None:
        self._dataset = dataset  # keeps its files in the cache
        split = np.asarray(dataset.array("split"))
        found = (np.flatnonzero(split == code) for code in (TEST, VALIDATION, TRAIN))
        self._places = next(places for places in found if len(places))
        self._images = dataset.array("images")  # (N, H, W, C) uint8, mapped
        names = dataset.manifest["labels"]
        self._numbers = [labels.index(name) if name in labels else None for name in names]
        self._labels = dataset.array("labels") if names else None

    def __len__(self) -> int:
        return len(self._places)

    def at(self, place: int) -> tuple[npt.NDArray[np.uint8], int | None]:
        """The image at `place` modulo their number, (H, W, C), and its class for the network."""
        item = self._places[place % len(self)]
        label = None if self._labels is None else self._numbers[int(self._labels[item])]
        return self._images[item], label
