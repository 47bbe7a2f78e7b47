"""Packing several examples into one row, where none sees another (Krell et al. 2021).

A row is int64 (2, T): the tokens, `~t` for one that is not predicted, and each token's position in
its example. An example begins where positions restart at 0; attention never crosses that boundary.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt

from db.errors import BadInput
from worker.conversations import Conversation
from worker.data.dataset import TRAIN, VALIDATION, LocalDataset, Shape
from worker.families.hf import HfParams
from worker.families.hf.chat_tokenizer import ChatTokenizer
from worker.feeds.feed import Arrays, Feed
from worker.feeds.tokens import is_learnt

Ids = npt.NDArray[np.int32]
Row = tuple[int, ...]  # the numbers of the examples in it

OPEN_ROWS = 64  # with room left, in which an example is tried
EXAMPLES = 8  # questions to preview


class PackedFeed(Feed):
    """Batches int64 (B, 2, T), T at most `context`; no labels.

    Texts are cut into pieces of `context` tokens. Other examples are cut after `context` tokens,
    and left out if their answer begins later.
    """

    def __init__(
        self, dataset: LocalDataset, tokenizer: ChatTokenizer, params: HfParams, *, seed: int
    ) -> None:
        self.params, self.seed = params, seed
        self.shape = Shape("text")
        self._train = _examples(dataset, tokenizer, TRAIN, params.context)
        self._validation = _examples(dataset, tokenizer, VALIDATION, params.context)
        if not self._train:
            raise BadInput(
                f"no example of the training split has an answer within {params.context} tokens",
                remedy="set a larger context, or check the data",
            )
        self.examples = [*islice(_questions(dataset, tokenizer, params.context // 2), EXAMPLES)]
        order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(self._train))
        self._rows = self._pack(self._train, [int(i) for i in order])
        self.train_count = len(self._rows)
        self._epoch = lru_cache(maxsize=2)(self._epoch_order)

    def train(self, step: int) -> Arrays:
        """The rows of a step; each epoch takes all rows in an order of its own."""
        first = step * self.params.batch_size
        places = [divmod(first + i, self.train_count) for i in range(self.params.batch_size)]
        rows = [self._rows[int(self._epoch(epoch)[i])] for epoch, i in places]
        return as_batch([[self._train[i] for i in row] for row in rows]), None

    def validation(self) -> Iterator[Arrays]:
        """Every example of the split once."""
        rows = self._pack(self._validation, range(len(self._validation)))
        size = self.params.batch_size
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            yield as_batch([[self._validation[i] for i in row] for row in some]), None

    def _pack(self, examples: Sequence[Ids], order: Sequence[int]) -> list[Row]:
        if not self.params.packing:
            return [(i,) for i in order]
        return pack([len(each) for each in examples], order, room=self.params.context)

    def _epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch + 1]))
        order: npt.NDArray[np.int64] = generator.permutation(self.train_count)
        return order


def pack(lengths: Sequence[int], order: Iterable[int], *, room: int) -> list[Row]:
    """Pack examples into rows of at most `room` tokens: first fit, in the given order."""
    full: list[Row] = []
    rows: list[tuple[int, list[int]]] = []  # the room left, the examples
    for number in order:
        length = lengths[number]
        place = next((i for i, (left, _) in enumerate(rows) if left >= length), None)
        if place is None:
            rows.append((room - length, [number]))
        else:
            left, row = rows[place]
            rows[place] = (left - length, [*row, number])
        if len(rows) > OPEN_ROWS:
            fullest = min(range(len(rows)), key=lambda i: rows[i][0])
            full.append(tuple(rows.pop(fullest)[1]))
    return full + [tuple(row) for _, row in rows]


def as_batch(rows: Sequence[Sequence[Ids]]) -> npt.NDArray[np.int64]:
    """Rows of examples as int64 (B, 2, T): tokens and positions, padded with token 0 as context."""
    width = max(sum(len(each) for each in row) for row in rows)
    batch = np.empty((len(rows), 2, width), np.int64)
    for filled, row in zip(batch, rows, strict=True):
        used = sum(len(each) for each in row)
        rest = np.full(width - used, ~0, np.int32)
        filled[0] = np.concatenate([*row, rest])
        filled[1] = np.concatenate([np.arange(len(each)) for each in [*row, rest]])
    return batch


def _examples(
    dataset: LocalDataset, tokenizer: ChatTokenizer, split: int, context: int
) -> list[Ids]:
    """The split's examples of at most `context` tokens that predict anything."""
    found = []
    for row in dataset.documents(split):
        for example in tokenizer.examples(row):
            ids = np.array(example, np.int32)
            pieces = range(0, len(ids) if "text" in row else 1, context)
            found += [ids[start : start + context] for start in pieces]
    return [ids for ids in found if (ids[1:] >= 0).any()]


def _questions(
    dataset: LocalDataset, tokenizer: ChatTokenizer, context: int
) -> Iterator[Conversation]:
    """What the validation rows ask first, where the template shows it in `context` tokens."""
    for row in dataset.documents(VALIDATION) if tokenizer.chats else ():
        messages = tokenizer.messages(row)
        answer = next((i for i, each in enumerate(messages) if i and is_learnt(each)), 0)
        if answer and "tools" not in row:
            asked = Conversation.parse(messages[:answer])
            if len(tokenizer.prompt(asked)) <= context:
                yield asked
