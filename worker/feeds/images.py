"""Batches of a dataset of images."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from worker.data.dataset import TRAIN, VALIDATION, LocalDataset
from worker.feeds.augmentations import augment_images
from worker.feeds.feed import Arrays, Feed


class ImageFeed(Feed):
    """Images float32 (B, C, H, W) in [-1, 1], and their labels int64 (B,) if there are any.

    Training batches all hold `batch_size` images, so one may span two epochs. The permutation of an
    epoch is a pure function of (seed, epoch). With `labelled=False` labels are left out. Training
    images are augmented as the dataset declares.
    """

    def __init__(
        self, dataset: LocalDataset, *, batch_size: int, seed: int, labelled: bool = True
    ) -> None:
        self.shape = dataset.shape("image")
        if not labelled:
            self.shape = replace(self.shape, labels=())
        self.batch_size = batch_size
        self.seed = seed
        self._augmentations = dataset.augmentations
        split = np.asarray(dataset.array("split"))
        self._train = np.flatnonzero(split == TRAIN)
        self._validation = np.flatnonzero(split == VALIDATION)
        self._images = np.asarray(dataset.array("images"))  # (N, H, W, C) uint8, memory-mapped
        self._labels = np.asarray(dataset.array("labels")) if self.shape.labels else None
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, self._train)
        self.train_count = len(self._train)

    def train(self, step: int) -> Arrays:
        """The batch of training step `step`."""
        first = step * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), self.train_count)
        items = [self._epoch(int(each))[places[epochs == each]] for each in np.unique(epochs)]
        images, labels = self._batch(np.concatenate(items))
        if self._augmentations:
            philox = np.random.Philox(key=[self.seed, step], counter=[0, 0, 1, 2**63])
            generator = np.random.Generator(philox)
            images = np.ascontiguousarray(augment_images(images, self._augmentations, generator))
        return images, labels

    def validation(self) -> Iterator[Arrays]:
        """The validation images once, in order; the last batch may be smaller."""
        for first in range(0, len(self._validation), self.batch_size):
            yield self._batch(self._validation[first : first + self.batch_size])

    def _epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        """The training items in the order of `epoch`; the latest epoch is cached."""
        if self._order[0] != epoch:
            # a distant counter: `Draw` uses the low streams of the same key
            philox = np.random.Philox(key=[self.seed, epoch], counter=[0, 0, 0, 2**63])
            generator = np.random.Generator(philox)
            self._order = (epoch, self._train[generator.permutation(self.train_count)])
        return self._order[1]

    def _batch(self, items: npt.NDArray[np.int64]) -> Arrays:
        pixels = self._images[items].transpose(0, 3, 1, 2)  # (B, C, H, W)
        data = np.ascontiguousarray(pixels, dtype=np.float32)
        data /= np.float32(127.5)
        data -= np.float32(1)
        return data, None if self._labels is None else self._labels[items]


class CaptionFeed(ImageFeed):
    """Images as in `ImageFeed` and, in place of labels, their captions' tokens int64 (B, T).

    `captions` (N, T) are the tokens of all of the dataset's images, less than `vocabulary`.
    """

    def __init__(
        self,
        dataset: LocalDataset,
        captions: npt.NDArray[np.uint16],
        *,
        vocabulary: int,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, seed=seed, labelled=False)
        self.shape = replace(self.shape, vocabulary=vocabulary)
        self._captions = captions

    def _batch(self, items: npt.NDArray[np.int64]) -> Arrays:
        return super()._batch(items)[0], self._captions[items].astype(np.int64)
