"""Sequences for a hidden Markov model: tokens, or vectors of numbers."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import BadInput
from worker.data.dataset import TRAIN, VALIDATION, LocalDataset, Shape
from worker.families.hmm.numbers import SCALE, Numbers, Scale, load_scale, parse_numbers
from worker.feeds.feed import Arrays, Feed
from worker.feeds.tokenizer import Tokenizer
from worker.feeds.tokens import VALIDATION_TOKENS, Ids, TokenFeed, document_segments

WARM_UP = 64  # tokens read before those that a validation sequence predicts


class TokenSequences(TokenFeed):
    """Windows of `context` + 1 tokens, int64 (B, context + 1); `~V` (of V tokens) is missing.

    If the training split has fewer than `batch_size` windows, each step returns all of them.
    """

    def train(self, step: int) -> Arrays:
        """All windows, or the step's."""
        if len(self._offsets(self._train)) < self.batch_size:
            return self._all, None
        data, _ = super().train(step)
        return self._with_missing(data), None

    def validation(self) -> Iterator[Arrays]:
        """Windows in which each token of the split but the first is predicted exactly once.

        Up to `WARM_UP` tokens of context precede them, from which the filter infers its state.
        """
        stream, size = self._validation, self.context + WARM_UP + 1
        starts = self._offsets(stream)
        rows = max(VALIDATION_TOKENS // self.context, 1)
        for first in range(0, len(starts), rows):
            batch = np.full((len(starts[first : first + rows]), size), ~self.shape.vocabulary)
            for row, at in zip(batch, starts[first : first + rows], strict=True):
                before = min(at, WARM_UP)
                found = stream[at - before : at + self.context + 1].astype(np.int64)
                found[: before + 1] = np.minimum(found, ~found)[: before + 1]
                row[: len(found)] = found
            yield batch, None

    @cached_property
    def _all(self) -> npt.NDArray[np.int64]:
        data = self._windows(self._train, np.array(self._offsets(self._train)))
        starts = self._ends_line[np.maximum(data[:, 0], ~data[:, 0])]
        data[starts, 0] = self._end  # so that a model of one long text learns to begin a text
        return self._with_missing(data)

    def _offsets(self, stream: Ids) -> range:
        return range(0, len(stream) - 1, self.context)

    def _with_missing(self, data: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        # a context-only `end` is always padding: the stream's own are predicted
        data[data == ~Tokenizer.end] = ~self.shape.vocabulary
        return data


class NumberSequences(Feed):
    """Sequences of `context` vectors of one document each, float64 (B, context, D), NaN if missing.

    Components are standardised by the means and deviations in `scale.json` in `files`, which are
    measured and written if the file does not exist.
    """

    def __init__(
        self, dataset: LocalDataset, *, context: int, batch_size: int, seed: int, files: Path
    ) -> None:
        self.context, self.batch_size, self.seed = context, batch_size, seed
        train = list(_documents(dataset, TRAIN))
        if sum(map(len, train)) < 2:
            raise BadInput("the training split holds fewer than 2 vectors of numbers")
        if not (files / SCALE).exists():
            Scale.of(np.concatenate(train)).save(files)
        self.scale = load_scale(files)
        dimensions = len(self.scale.mean)
        self.shape = Shape(media="text", channels=dimensions)
        self._train = self._sequences(train)
        self._validation = self._sequences(_documents(dataset, VALIDATION))
        self.train_count = len(self._train)

    def train(self, step: int) -> Arrays:
        """All sequences if they are fewer than `batch_size`, else the step's batch."""
        if self.train_count < self.batch_size:
            return self._train, None
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = {int(e): self._permutation(int(e)) for e in np.unique(places // self.train_count)}
        chosen = [epochs[p // self.train_count][p % self.train_count] for p in places.tolist()]
        return self._train[chosen], None

    def validation(self) -> Iterator[Arrays]:
        """The validation split's sequences, in order."""
        rows = max(VALIDATION_TOKENS // self.context, 1)
        for first in range(0, len(self._validation), rows):
            yield self._validation[first : first + rows], None

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        return generator.permutation(self.train_count)

    def _sequences(self, documents: Iterable[Numbers]) -> Numbers:
        found = []
        for document in documents:
            scaled = self.scale.apply(document)
            lack = -len(scaled) % self.context
            padded = np.pad(scaled, ((0, lack), (0, 0)), constant_values=np.nan)
            found.append(padded.reshape(-1, self.context, scaled.shape[1]))
        empty = np.empty((0, self.context, len(self.scale.mean)))
        return np.concatenate([empty, *found])


def _documents(dataset: LocalDataset, split: int) -> Iterator[Numbers]:
    """The documents' vectors; raises `BadInput` if a text does not consist of numbers."""
    for number, row in enumerate(dataset.documents(split), start=1):
        text = " ".join(text for text, _ in document_segments(row))
        if text.strip():
            yield parse_numbers(text, where=f"document {number} of the split: ")
