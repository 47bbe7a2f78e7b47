"""Generating text with a model of `transformers`, in batches of prompts of similar length.

A prompt is padded on the left to the next multiple of `STRIDE` tokens, by at least one token, and a
forward always has `micro_batch` rows. So the shape of a forward, and with it every number of a
text, depends on the text's own prompt alone.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from db.errors import NonFinite, Refused
from worker.families.hf import HfSampling
from worker.families.hf.chat_tokenizer import ChatTokenizer
from worker.networks.network import Draws, Finished, Row
from worker.networks.token_choice import choose

STRIDE = 32  # padded prompts are multiples of this many tokens
WINDOW = 16  # micro-batches of rows that are sorted by length together
BYTES = 4  # the most of a character in UTF-8, and so the most tokens of one
YIELD_EVERY = 16  # tokens after which control returns to the caller

# (ids (B, t), mask (B, T), cache) -> logits (B, V) of the next tokens, cache
NextLogits = Callable[[Tensor, Tensor, Any], tuple[Tensor, Any]]


@dataclass
class Text:
    """One row's text so far."""

    row: Row
    prompt: list[int]
    max_tokens: int
    tokens: list[int] = field(default_factory=list)  # generated
    output: str = ""
    done: bool = False

    @property
    def padded_length(self) -> int:
        """Tokens of the padded prompt, at least one of them padding."""
        return (len(self.prompt) // STRIDE + 1) * STRIDE

    def add(
        self, token: int, ends: Set[int], stop: Sequence[str], tokenizer: ChatTokenizer
    ) -> None:
        """Append a token; finish at an end token, a stop string or the limit."""
        ended = token in ends
        if not ended:
            self.tokens.append(token)
        self.done = ended or len(self.tokens) >= self.max_tokens
        if self.done or (stop and self._has_stop(stop, tokenizer)):
            self.output = tokenizer.text(self.tokens, self.prompt)
        stops = [at for at in (self.output.find(each) for each in stop) if at >= 0]
        if stops:
            self.output, self.done = self.output[: min(stops)], True

    def _has_stop(self, stop: Sequence[str], tokenizer: ChatTokenizer) -> bool:
        # only the last tokens are decoded: decoding all of them at every step would be slow
        reach = BYTES * max(map(len, stop)) + 1
        tail = tokenizer.text(self.tokens[-reach:], self.tokens[:-reach] or self.prompt)
        return any(each in tail for each in stop)


@dataclass(frozen=True)
class TextGenerator:
    """A model's parts that generation needs, and the settings of a job."""

    next_logits: NextLogits
    tokenizer: ChatTokenizer
    positions: int  # the most tokens that the model reads
    ends: Set[int]  # tokens that end a text
    sampling: HfSampling

    def generate(self, rows: Iterator[Row], draws: Draws) -> Iterator[list[Finished]]:
        """Generate a text for each row, similar lengths together; now and then yield nothing."""
        size = self.sampling.micro_batch
        while window := list(islice(rows, WINDOW * size)):
            texts = [self._begin(row) for row in window]
            for length in sorted({text.padded_length for text in texts}):
                alike = iter([text for text in texts if text.padded_length == length])
                while batch := list(islice(alike, size)):
                    yield from self._generate_batch(batch, draws)
                    yield [(text.row, text.output) for text in batch]

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

    def _generate_batch(self, texts: list[Text], draws: Draws) -> Iterator[list[Finished]]:
        """Generate texts of one padded length; copies of the last one fill a smaller batch."""
        rows = [*texts, *[texts[-1]] * (self.sampling.micro_batch - len(texts))]
        uniform = draws([text.row for text in rows]).uniform(self.sampling.max_tokens)
        ids, mask = _padded(rows, uniform.device)
        ends = self.ends | self.tokenizer.tokens(self.sampling.stop)
        cache: Any = None
        for step in range(self.sampling.max_tokens):
            logits, cache = self.next_logits(ids, mask, cache)
            if not torch.isfinite(logits).all():
                raise NonFinite("the model's logits are not finite: its weights are damaged")
            chosen = choose(logits, uniform[:, step], self.sampling)  # (B,)
            for text, token in zip(texts, chosen.tolist(), strict=False):
                if not text.done:
                    text.add(token, ends=ends, stop=self.sampling.stop, tokenizer=self.tokenizer)
            if all(text.done for text in texts):
                return
            ids = chosen[:, None]
            mask = torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)
            if step % YIELD_EVERY == YIELD_EVERY - 1:
                yield []


def _padded(texts: Sequence[Text], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left, int64 (B, padded length), and a mask that is 1 at tokens."""
    ids = torch.zeros(len(texts), texts[0].padded_length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, -len(text.prompt) :] = torch.tensor(text.prompt)
        mask[row, -len(text.prompt) :] = 1
    return ids.to(device), mask.to(device)
