"""Windows of tokens from a text dataset.

A split's documents are concatenated into one stream of ids, `end` before the first and after each.
It is written to a file beside the dataset once and memory-mapped. In a window, a negative entry
`~t` is token t as context only: read but never predicted (a prompt or padding).
"""

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import BadInput
from worker.conversations import Message
from worker.data.dataset import TRAIN, VALIDATION, LocalDataset, Shape
from worker.feeds.feed import Arrays, Feed
from worker.feeds.tokenizer import Tokenizer

Ids = npt.NDArray[np.int32]

CHUNK_CHARACTERS = 2**20
VALIDATION_TOKENS = 4096  # per validation batch, whatever the batch size
LINE_START_EVERY = 8  # windows
LINE_ENDS = ("\n", "。", "！", "？")  # noqa: RUF001 - full-width on purpose: Chinese sentences


class TextFeed(Feed):
    """The token streams of the training and validation splits, from which windows are cut."""

    def __init__(
        self,
        dataset: LocalDataset,
        tokenizer: Tokenizer,
        *,
        context: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.context, self.batch_size, self.seed = context, batch_size, seed
        self.shape = Shape(media="text", vocabulary=tokenizer.size)
        self._end = tokenizer.end
        self._ends_line = line_end_mask(tokenizer)
        self._train = token_stream(dataset, tokenizer, TRAIN)
        self._validation = token_stream(dataset, tokenizer, VALIDATION)
        if len(self._train) < 3:
            raise BadInput(f"the training split holds only {len(self._train) - 1} tokens")


class TokenFeed(TextFeed):
    """Windows of `context` + 1 tokens, int64 (B, context + 1); no labels.

    An epoch cuts the stream into windows at a random phase and shuffles them. Every eighth window
    is moved forward to the start of a line, and the line break before it is replaced by `end`, so
    that a model of one long text learns to begin a text.
    """

    def __init__(self, dataset: LocalDataset, tokenizer: Tokenizer, **sizes: int) -> None:
        super().__init__(dataset, tokenizer, **sizes)
        self.train_count = max((len(self._train) - 1) // self.context - 1, 1)
        self._epoch = lru_cache(maxsize=2)(self._epoch_offsets)

    def train(self, step: int) -> Arrays:
        """The windows of a step, int64 (B, context + 1)."""
        first = step * self.batch_size
        offsets = [self._offset(first + row) for row in range(self.batch_size)]
        data = self._windows(self._train, np.array(offsets))
        data[self._ends_line[np.maximum(data[:, 0], ~data[:, 0])], 0] = self._end
        return data, None

    def validation(self) -> Iterator[Arrays]:
        """Adjacent windows: each token of the split but the first is predicted exactly once."""
        offsets = np.arange(0, len(self._validation) - 1, self.context)
        rows = max(VALIDATION_TOKENS // self.context, 1)
        for first in range(0, len(offsets), rows):
            yield self._windows(self._validation, offsets[first : first + rows]), None

    def _offset(self, place: int) -> int:
        """The offset in the stream of the run's window number `place`."""
        epoch, i = divmod(place, self.train_count)
        at = int(self._epoch(epoch)[i])
        if place % LINE_START_EVERY:
            return at
        ahead = self._train[at : at + self.context]
        return at + int(np.argmax(self._ends_line[np.maximum(ahead, ~ahead)]))  # 0 if none does

    def _windows(self, stream: Ids, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """`context` + 1 tokens from each offset, padded with `~end` after the stream's end."""
        places = offsets[:, None] + np.arange(self.context + 1)
        found = stream[np.minimum(places, len(stream) - 1)]
        windows: npt.NDArray[np.int64] = found.astype(np.int64)
        windows[places >= len(stream)] = ~self._end
        return windows

    def _epoch_offsets(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        slack = max(len(self._train) - 1 - self.train_count * self.context, 0)
        phase = generator.integers(0, slack + 1)
        offsets: npt.NDArray[np.int64] = generator.permutation(self.train_count)
        return offsets * self.context + phase


def document_segments(row: dict[str, Any]) -> list[tuple[str, bool]]:
    """A document's text in segments, each with whether it is predicted or only context.

    Predicted are a whole `text`, the `completion` after a `prompt`, and the assistant's `messages`
    but those of weight 0. Tools and calls of them are written as JSON.
    """
    if "text" in row:
        return [(row["text"], True)]
    if "prompt" in row:
        return [(row["prompt"], False), (row["completion"], True)]
    segments = [(f"tools: {_json(row['tools'])}\n\n", False)] if "tools" in row else []
    for message in row["messages"]:
        calls = [_json(call["function"]) for call in message.get("tool_calls", ())]
        said = "\n".join([message["content"]] * bool(message["content"] or not calls) + calls)
        segments.append((f"{message['role']}: ", False))
        segments.append((f"{said}\n\n", is_learnt(message)))
    return segments


def is_learnt(message: Message) -> bool:
    """Whether a model learns to write a message: the assistant's, but for those of weight 0."""
    return bool(message["role"] == "assistant" and message.get("weight", 1))


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)


class Texts:
    """The texts of a split's documents, read anew at each iteration."""

    def __init__(self, dataset: LocalDataset, split: int) -> None:
        self._dataset, self._split = dataset, split

    def __iter__(self) -> Iterator[str]:
        for row in self._dataset.documents(self._split):
            yield "".join(text for text, _ in document_segments(row))


def line_end_mask(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """Whether each id ends a line or sentence, bool (V,)."""
    return np.array([piece.endswith(LINE_ENDS) for piece in tokenizer.pieces])


def token_stream(dataset: LocalDataset, tokenizer: Tokenizer, split: int) -> Ids:
    """The split's tokens, encoded at first use and memory-mapped from a file beside the dataset."""
    path = dataset.folder / f"tokens-{tokenizer.digest[:16]}-{split}.npy"
    if not path.exists():
        _write_stream(path, dataset, tokenizer, split)
    # as a plain array, because a `memmap` is slow to index
    stream: Ids = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    return stream


def _write_stream(path: Path, dataset: LocalDataset, tokenizer: Tokenizer, split: int) -> None:
    """Write the stream under a temporary name first: other processes may be doing the same."""
    raw, array_file = (path.with_suffix(f".{os.getpid()}.{end}") for end in ("raw", "npy"))
    try:
        with raw.open("wb") as file:
            for ids in _encoded(dataset, tokenizer, split):
                file.write(ids.tobytes())
        count = raw.stat().st_size // np.dtype(np.int32).itemsize
        array = np.lib.format.open_memmap(array_file, mode="w+", dtype=np.int32, shape=(count,))
        array[:] = np.memmap(raw, dtype=np.int32, mode="r")
        array.flush()
        array_file.replace(path)
    finally:
        raw.unlink(missing_ok=True)
        array_file.unlink(missing_ok=True)


def _encoded(dataset: LocalDataset, tokenizer: Tokenizer, split: int) -> Iterator[Ids]:
    end = np.array([tokenizer.end], np.int32)
    yield end
    for row in dataset.documents(split):
        for text, predicted in document_segments(row):
            for start in range(0, len(text), CHUNK_CHARACTERS):
                ids = np.array(tokenizer.encode(text[start : start + CHUNK_CHARACTERS]), np.int32)
                yield ids if predicted else ~ids
        yield end
