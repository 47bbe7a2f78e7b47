"""Contiguous windows of tokens, for networks that carry a state from one step to the next.

The token stream is read as a ring and cut into segments of equal length, one per row of the batch.
A row's next window begins with the last token of its previous one, so the state carries over
(truncated backpropagation through time: Williams, Peng 1990).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from worker.data.dataset import LocalDataset
from worker.feeds.feed import Arrays
from worker.feeds.tokenizer import Tokenizer
from worker.feeds.tokens import TextFeed

FRESH_SHARE = 16  # one row in so many starts afresh with each window
WINDOW, HISTORY = 512, 256  # tokens predicted in a validation row, and read before them
VALIDATION_ROWS = 8

Windows = npt.NDArray[np.int64]


class StatefulFeed(TextFeed):
    """Windows of `context` + 1 tokens, int64 (B, context + 1); row i continues row i of the last.

    The segments start at another offset of the text in each epoch. The last sixteenth of the rows
    (one of 4 to 15) are fresh: they start with `end`, at the start of a line drawn by (seed, step),
    so that a model of one long text learns to begin a text. A network must reset its state in each
    row that begins with `end`. Negative entries are as in `TokenFeed`.
    """

    def __init__(self, dataset: LocalDataset, tokenizer: Tokenizer, **sizes: int) -> None:
        super().__init__(dataset, tokenizer, **sizes)
        rows = self.batch_size
        # without the `end` before the first document: on a ring, the last one's precedes it
        self._ring = len(self._train) - 1
        self._carried = rows - max(rows // FRESH_SHARE, min(rows // 4, 1))  # rows that continue
        self.epoch_steps = max(self._ring // (self._carried * self.context), 1)
        self.train_count = self.epoch_steps * self._carried

    def train(self, step: int) -> Arrays:
        """The windows of a step: rows that continue, then fresh ones."""
        epoch, place = divmod(step, self.epoch_steps)
        segments = np.arange(self._carried) * (self._ring // self._carried)
        offset = self._generator(epoch, stream=1).integers(0, self._ring)
        carried = segments + offset + place * self.context
        data = self._windows(np.concatenate((carried, self._fresh_starts(step))))
        first = data[self._carried :, 0]
        first[self._ends_line[np.maximum(first, ~first)]] = self._end
        return data, None

    def validation(self) -> Iterator[Arrays]:
        """Each token of the split but the first is predicted exactly once, in order.

        A row reads up to `HISTORY` tokens before those that it predicts.
        """
        count = len(self._validation) - 1
        rows = -(-count // WINDOW)
        size = -(-count // max(rows, 1))  # equal lengths, so that rows have equal weight in a mean
        for first in range(0, rows, VALIDATION_ROWS):
            some = range(first, min(first + VALIDATION_ROWS, rows))
            yield (
                np.stack([self._row(row * size, size, min(count, HISTORY + size)) for row in some]),
                None,
            )

    def _row(self, first: int, size: int, length: int) -> Windows:
        """Tokens up to `first` + `size`, context only up to `first`, padded to `length` + 1."""
        start = max(first + size - length, 0)
        row = self._validation[start : first + size + 1].astype(np.int64)
        read = row[: first - start + 1]
        np.minimum(read, ~read, out=read)
        return np.pad(row, (0, length + 1 - len(row)), constant_values=~self._end)

    def _windows(self, starts: npt.NDArray[np.int64]) -> Windows:
        """`context` + 1 tokens from each start, around the ring."""
        places = (starts[:, None] + np.arange(self.context + 1)) % self._ring
        windows: Windows = self._train[places + 1].astype(np.int64)
        return windows

    def _fresh_starts(self, step: int) -> Windows:
        """Where fresh rows start: each at the first line start after a random offset."""
        generator = self._generator(step, stream=0)
        drawn = generator.integers(0, self._ring, self.batch_size - self._carried)
        ahead = self._windows(drawn)
        to_line_end = np.argmax(self._ends_line[np.maximum(ahead, ~ahead)], 1)  # 0 if none
        return np.asarray(drawn + to_line_end)

    def _generator(self, place: int, *, stream: int) -> np.random.Generator:
        philox = np.random.Philox(key=[self.seed, place], counter=[0, 0, 0, stream])
        return np.random.Generator(philox)
