"""Generating text with a model of `transformers`: prompts in batches, then continuous batching.

Prompts of similar length are read together. A prompt is padded on the left to the next multiple of
32 tokens, by at least one token, and a forward always has `micro_batch` rows. Then each text
takes a slot, and a slot whose text has ended takes the next one (Yu et al. 2022, "Orca"). Models
whose cache has no slots generate batch after batch. Either way the shape of what a text is computed
from, and with it every number of the text, depends on its own prompt alone.
"""

from collections import deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from db.errors import NonFinite, Refused
from worker.families.hf import HfSampling
from worker.families.hf.chat_tokenizer import ChatTokenizer
from worker.families.hf.slots import SlotCache
from worker.families.hf.text import Text, pad
from worker.networks.network import Draws, Finished, Row
from worker.networks.token_choice import choose
from worker.networks.token_watermark import Marked

WINDOW = 16  # micro-batches of rows that are sorted by length together


class LanguageModel(Protocol):
    """A causal language model; logits are float32 (B, V)."""

    def next_logits(self, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Read ids (B, t) after those in the cache; returns logits of the next, and the cache.

        `mask` (B, T) is 1 where a position, old or new, has a token.
        """

    def next_slot_logits(self, ids: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Read one more token in each slot, ids and their positions (B, 1)."""

    def has_slots(self) -> bool:
        """Whether the model can read a `SlotCache`."""


@dataclass
class Prompts:
    """Texts whose prompts have been read together, and their first tokens chosen."""

    texts: list[Text]
    uniform: npt.NDArray[np.float32]  # (B, max_tokens)
    ids: Tensor  # (B, 1): the tokens to read next
    mask: Tensor  # (B, padded length)
    cache: Any


@dataclass
class Slot:
    """A text in progress: the token to read next, and the numbers that choose those after it."""

    text: Text
    uniform: npt.NDArray[np.float32]
    token: int

    @property
    def position(self) -> int:
        """The position of `token`."""
        return len(self.text.prompt) + len(self.text.tokens) - 1


class TextGenerator:
    """Generates the texts of one job."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: ChatTokenizer,
        sampling: HfSampling,
        *,
        positions: int,
        ends: Set[int],
    ) -> None:
        """`positions`: the most tokens that the model reads; `ends`: tokens that end a text."""
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.positions, self.ends = positions, ends | tokenizer.tokens(sampling.stop)

    def generate(self, rows: Iterator[Row], draws: Draws) -> Iterator[list[Finished]]:
        """Generate a text for each row. Yields after each token, most often nothing.

        Steps of equal work are what the number of CPU threads is chosen by.
        """
        batches = (self._read_prompts(batch, draws) for batch in self._batches(rows))
        if self.model.has_slots():
            yield from self._in_slots(batches)
            return
        for prompts in batches:
            yield from self._in_batch(prompts)
            yield [(text.row, text.output) for text in prompts.texts]

    def _batches(self, rows: Iterator[Row]) -> Iterator[list[Text]]:
        """Texts of one padded length, at most a micro-batch of them."""
        size = self.sampling.micro_batch
        while window := list(islice(rows, WINDOW * size)):
            texts = [self._begin(row) for row in window]
            for length in sorted({text.padded_length for text in texts}):
                alike = iter([text for text in texts if text.padded_length == length])
                while batch := list(islice(alike, size)):
                    yield batch

    def _begin(self, row: Row) -> Text:
        prompt = self.tokenizer.prompt(row.prompt or "", self.sampling.system)
        room = self.positions - len(prompt)
        if room < 1:
            raise Refused(
                f"prompt {row.index} has {len(prompt)} tokens; this model takes at most "
                f"{self.positions - 1}",
                remedy="shorten it",
            )
        return Text(row, prompt, min(self.sampling.max_tokens, room))

    def _read_prompts(self, texts: list[Text], draws: Draws) -> Prompts:
        """Read a batch's prompts; copies of the last text fill a smaller batch."""
        rows = [*texts, *[texts[-1]] * (self.sampling.micro_batch - len(texts))]
        uniform = draws([text.row for text in rows]).uniform(self.sampling.max_tokens)
        ids, mask = pad(rows, uniform.device)
        logits, cache = self.model.next_logits(ids, mask, None)
        chosen = self._choose(logits, uniform[:, 0])
        self._add(texts, chosen.tolist())
        return Prompts(texts, uniform.cpu().numpy(), chosen[:, None], mask, cache)

    def _in_batch(self, prompts: Prompts) -> Iterator[list[Finished]]:
        """Continue a batch until its last text is done."""
        ids, mask, cache = prompts.ids, prompts.mask, prompts.cache
        uniform = torch.from_numpy(prompts.uniform).to(ids.device)
        for step in count(1):
            if all(text.done for text in prompts.texts):
                return
            mask = torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)
            logits, cache = self.model.next_logits(ids, mask, cache)
            marked = [text.to_mark() for text in prompts.texts]
            chosen = self._choose(logits, uniform[:, step], marked)
            self._add(prompts.texts, chosen.tolist())
            ids = chosen[:, None]
            yield []

    def _in_slots(self, batches: Iterator[Prompts]) -> Iterator[list[Finished]]:
        """Continue each text in a slot of its own; the next one takes the slot when it is done."""
        slots: list[Slot | None] = [None] * self.sampling.micro_batch
        waiting = Waiting(batches, self.sampling.micro_batch)
        while True:
            finished = waiting.fill(slots)
            if not any(slots):
                yield finished
                return
            yield finished + self._step(slots, waiting.cache)

    def _step(self, slots: list[Slot | None], cache: SlotCache) -> list[Finished]:
        """One more token of each text; returns the texts that are done, whose slots are empty."""
        read = [(slot.token, slot.position) if slot else (0, 0) for slot in slots]
        ids, positions = torch.tensor(read, device=cache.device).unbind(1)
        logits = self.model.next_slot_logits(ids[:, None], positions[:, None], cache)
        uniform = [slot.uniform[len(slot.text.tokens)] if slot else 0.0 for slot in slots]
        marked = [slot.text.to_mark() if slot else None for slot in slots]
        chosen = self._choose(logits, torch.tensor(uniform, device=logits.device), marked).tolist()
        finished: list[Finished] = []
        for number, slot in enumerate(slots):
            if slot:
                slot.token = chosen[number]
                self._add([slot.text], [slot.token])
                if slot.text.done:
                    finished.append((slot.text.row, slot.text.output))
                    slots[number] = None
                    cache.leave(number)
        return finished

    def _choose(
        self, logits: Tensor, uniform: Tensor, marked: Sequence[Marked | None] = ()
    ) -> Tensor:
        """The next token of each row (B,); the first one of a text is never marked."""
        if not torch.isfinite(logits).all():
            raise NonFinite("the model's logits are not finite: its weights are damaged")
        return choose(logits, uniform, self.sampling, marked)

    def _add(self, texts: Sequence[Text], tokens: Sequence[int]) -> None:
        for text, token in zip(texts, tokens, strict=False):
            if not text.done:
                text.add(token, self.ends, self.sampling.stop, self.tokenizer)


class Waiting:
    """Texts whose prompts have been read and that wait for a slot: at most a batch of them."""

    def __init__(self, batches: Iterator[Prompts], slots: int) -> None:
        self._batches, self._slots = batches, slots
        self._texts: deque[tuple[Prompts, int]] = deque()  # and their rows
        self._cache: SlotCache | None = None

    @property
    def cache(self) -> SlotCache:
        """The cache of the slots, which the first text that takes one makes."""
        if self._cache is None:
            raise RuntimeError("fill() comes first: no text has a slot")
        return self._cache

    def fill(self, slots: list[Slot | None]) -> list[Finished]:
        """Give empty slots to the next texts; returns texts that were done at their first token."""
        finished: list[Finished] = []
        for number in [number for number, slot in enumerate(slots) if slot is None]:
            while not self._texts and (prompts := next(self._batches, None)):
                done = [text for text in prompts.texts if text.done]
                finished += [(text.row, text.output) for text in done]
                rows = range(len(prompts.texts))
                self._texts.extend((prompts, row) for row in rows if not prompts.texts[row].done)
            if self._texts:
                slots[number] = self._start(number, *self._texts.popleft())
        return finished

    def _start(self, number: int, prompts: Prompts, row: int) -> Slot:
        text = prompts.texts[row]
        self._cache = self._cache or SlotCache(self._slots, prompts.cache)
        self._cache.join(number, prompts.cache, row, padding=text.padding)
        return Slot(text, prompts.uniform[row], text.tokens[-1])
