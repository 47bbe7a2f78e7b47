"""Tokens in lanes, for models that carry a state from one step to the next.

The stream of `worker.feeds.tokens` is read as a ring, cut into lanes of equal length. A lane's next
window begins with the last token of its window before, so what a model remembers of one is true of
the next (truncated backpropagation through time: Williams, Peng 1990).
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from worker.data.dataset import LocalDataset
from worker.feeds.feed import Arrays
from worker.feeds.tokenizer import Tokenizer
from worker.feeds.tokens import StreamFeed

BEGUN = 16  # one lane in so many begins anew with each window
WINDOW, HISTORY = 512, 256  # tokens predicted in a row of validation, and read before them
VALIDATION_ROWS = 8

Windows = npt.NDArray[np.int64]


class LaneFeed(StreamFeed):
    """Windows of `context` + 1 tokens, int64 (B, context + 1): row i of each is a piece of lane i.

    The lanes begin at another place of the text in each epoch. So that a model of one long text
    learns to begin one, the last sixteenth of the rows (one, where there are 4 to 15) are no lanes:
    they begin with the `end` of a document, at a place drawn by (seed, step) where a line starts.
    Whoever carries a state forgets it in each row that begins with `end`. Negative entries are as
    in `TokenFeed`.
    """

    def __init__(self, dataset: LocalDataset, tokenizer: Tokenizer, **sizes: int) -> None:
        super().__init__(dataset, tokenizer, **sizes)
        rows = self.batch_size
        self._ring = len(self._train) - 1  # the end before the first document is that of the last
        self._lanes = rows - max(rows // BEGUN, min(rows // 4, 1))
        self.epoch_steps = max(self._ring // (self._lanes * self.context), 1)
        self.train_count = self.epoch_steps * self._lanes
        self._offset = lru_cache(maxsize=2)(self._epoch_offset)

    def train(self, step: int) -> Arrays:
        """The windows of a step: the lanes', then those that begin anew."""
        epoch, place = divmod(step, self.epoch_steps)
        lanes = np.arange(self._lanes) * (self._ring // self._lanes)
        begun = self._begun(step)
        starts = np.concatenate((lanes + self._offset(epoch) + place * self.context, begun))
        data = self._windows(starts)
        first = data[self._lanes :, 0]
        first[self._starts[np.maximum(first, ~first)]] = self._end
        return data, None

    def validation(self) -> Iterator[Arrays]:
        """Each token of the split but the first is predicted exactly once, in order.

        A row reads the `HISTORY` tokens before those that it predicts, or as many as there are.
        """
        count = len(self._validation) - 1
        rows = -(-count // WINDOW)
        size = -(-count // max(rows, 1))  # of equal length, so that rows weigh alike in a mean
        for first in range(0, rows, VALIDATION_ROWS):
            some = range(first, min(first + VALIDATION_ROWS, rows))
            yield (
                np.stack([self._row(row * size, size, min(count, HISTORY + size)) for row in some]),
                None,
            )

    def _row(self, first: int, size: int, length: int) -> Windows:
        """Tokens up to `first` + `size`, all until `first` read only, padded to `length` + 1."""
        start = max(first + size - length, 0)
        row = self._validation[start : first + size + 1].astype(np.int64)
        read = row[: first - start + 1]
        np.minimum(read, ~read, out=read)
        return np.pad(row, (0, length + 1 - len(row)), constant_values=~self._end)

    def _windows(self, starts: npt.NDArray[np.int64]) -> Windows:
        """`context` + 1 tokens from each start on, around the ring."""
        places = (starts[:, None] + np.arange(self.context + 1)) % self._ring
        windows: Windows = self._train[places + 1].astype(np.int64)
        return windows

    def _begun(self, step: int) -> Windows:
        """Where the rows that begin anew do so, each at the first start of a line after a draw."""
        generator = self._generator(step, stream=0)
        drawn = generator.integers(0, self._ring, self.batch_size - self._lanes)
        ahead = self._windows(drawn)
        begins = np.argmax(self._starts[np.maximum(ahead, ~ahead)], 1)  # 0 where none starts
        return np.asarray(drawn + begins)

    def _epoch_offset(self, epoch: int) -> int:
        return int(self._generator(epoch, stream=1).integers(0, self._ring))

    def _generator(self, place: int, *, stream: int) -> np.random.Generator:
        philox = np.random.Philox(key=[self.seed, place], counter=[0, 0, 0, stream])
        return np.random.Generator(philox)
