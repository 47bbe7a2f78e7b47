"""Decoding texts with continuous batching: a slot whose text has ended takes the next row.

(Yu et al. 2022, "Orca".) In each step every slot reads one token. Prompts are read by the same
steps, or by one slot alone in chunks of a fixed size (prefill). Every step has the same number of
slots, so a text depends on its own tokens and random numbers alone: not on the other texts, on its
slot, or on the step in which it began.

A prompt may end inside a token: "The " before " cat". So its last token is chosen again, among
those that begin with the same letters ("token healing", Lundberg 2023).
"""

import sys
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from db.errors import NonFinite
from worker.feeds.tokenizer import Tokenizer
from worker.networks.network import Draws, Finished, Row
from worker.networks.params import TextSampling
from worker.networks.token_choice import choose
from worker.networks.token_watermark import Marked, MarkedText

MAX_PADDING = 64  # tokens that an empty slot reads until it is reset, which keeps it cheap
YIELD_EVERY = 16  # steps without a finished text after which control returns to the caller


class Decoder(Protocol):
    """A model and what it has read in each slot, at first nothing.

    A slot's logits depend, bit for bit, on what it has read since its last reset and on nothing
    else: not on the other slots, its place among them, or what it had read before.
    """

    @property
    def context(self) -> int | None:
        """The most tokens that a slot reads between two resets, at least 2; None: no limit."""

    def reset(self, slot: int) -> None:
        """Forget what a slot has read."""

    def read(self, tokens: Tensor) -> Tensor:
        """Read one more token in each slot, int64 (B,); returns logits of the next, float32 (B, V).

        -inf marks tokens that cannot follow. The caller may change the logits.
        """


@runtime_checkable
class PrefillDecoder(Decoder, Protocol):
    """A decoder that can read many known tokens at once, such as a prompt's."""

    @property
    def prefill_size(self) -> int:
        """Tokens that `prefill` reads, always the same number; 0: it cannot be used."""

    def prefill(self, slot: int, tokens: Tensor) -> None:
        """Read several more tokens, int64 (prefill_size,), in one slot alone."""


class Text:
    """One row's text: the tokens of its prompt and output, and how many have been read."""

    def __init__(
        self,
        row: Row,
        tokenizer: Tokenizer,
        sampling: TextSampling,
        *,
        context: int | None,
        uniform: npt.NDArray[np.float32],
    ) -> None:
        """`uniform` (max_tokens,) in [0, 1): number k chooses the k-th token of the output."""
        prompt = row.text
        self.row = row
        self.tokens = [tokenizer.end, *tokenizer.encode(prompt)][-(context or sys.maxsize) :]
        self.read = 0
        self.count = 0  # tokens of the output
        self.output = ""
        self.done = False
        self._tokenizer, self._sampling, self._uniform = tokenizer, sampling, uniform
        self._watermark = MarkedText(row.watermark_key, seed=row.seed, index=row.index)
        ending = tokenizer.ending(prompt)
        healing = tokenizer.completions(ending)
        # the first token must be one of these; []: any, as where only the prompt's last token fits
        self.first = healing if set(healing) - {self.tokens[-1]} else []
        self._healed = (
            ending if self.first else ""
        )  # the prompt's end, which the first token repeats
        self.tokens = self.tokens[:-1] if self.first else self.tokens

    @property
    def unread(self) -> int:
        """Tokens to read before the next one can be chosen."""
        return len(self.tokens) - self.read

    def take(self, count: int) -> list[int]:
        """The next `count` tokens to read, which count as read from now on."""
        self.read += count
        return self.tokens[self.read - count : self.read]

    def restrict(self, logits: Tensor) -> float:
        """Rule out in logits (V,) what cannot come next; returns the number that chooses."""
        if self.first and not self.count:
            kept = logits[self.first]
            logits.fill_(-torch.inf)
            logits[self.first] = kept
        return float(self._uniform[self.count])

    def to_mark(self) -> Marked | None:
        """The next token, if it is to carry a watermark."""
        return self._watermark.next(self.tokens, self.count)

    def add(self, token: int) -> None:
        """Append a chosen token; the text is done at its end, a stop string or the limit."""
        before = len(self.output)
        piece = self._tokenizer.pieces[token]
        self.output += piece if self.count else piece.removeprefix(self._healed)
        self.tokens.append(token)
        self.count += 1
        self.done = token == self._tokenizer.end or self.count >= self._sampling.max_tokens
        found = (self.output.find(s, max(before - len(s) + 1, 0)) for s in self._sampling.stop)
        stops = [at for at in found if at >= 0]
        if stops:
            self.output, self.done = self.output[: min(stops)], True


class Slot:
    """A row of the decoder's batch, and its text; without one it reads `padding`."""

    def __init__(self, number: int, decoder: Decoder, padding: int, device: torch.device) -> None:
        self.number, self.decoder, self.padding, self.device = number, decoder, padding, device
        self.text: Text | None = None
        self._read = 0  # tokens since the last reset
        self._prefill = decoder if isinstance(decoder, PrefillDecoder) else None

    def start(self, text: Text) -> None:
        """Begin a text."""
        self.text = text
        self._reset()

    def next_token(self) -> int:
        """The token to read now. A full slot is reset, and reads the last half of its text again.

        Known tokens are prefilled if the decoder can, except the last, which gives the logits.
        """
        context = self.decoder.context
        if self.text is None and self._read >= MAX_PADDING:
            self._reset()
        if context and self._read == context:
            self._reset()
            if self.text:
                self.text.read = len(self.text.tokens) - context // 2
        size = self._prefill.prefill_size if self._prefill else 0
        while self._prefill and size and self.text and self.text.unread > size:
            self._prefill.prefill(
                self.number, torch.tensor(self.text.take(size), device=self.device)
            )
            self._read += size
        self._read += 1
        return self.text.take(1)[0] if self.text else self.padding

    def _reset(self) -> None:
        self.decoder.reset(self.number)
        self._read = 0


class Slots:
    """Texts being decoded, at most `sampling.micro_batch` at once."""

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, sampling: TextSampling, device: torch.device
    ) -> None:
        self.decoder, self.tokenizer, self.sampling = decoder, tokenizer, sampling
        self.slots = [Slot(i, decoder, tokenizer.end, device) for i in range(sampling.micro_batch)]
        self.device = device

    def decode(self, rows: Iterator[Row], draws: Draws) -> Iterator[list[Finished]]:
        """Write a text for each row; an empty prompt begins a new document.

        Yields texts as they end, and now and then an empty list, so that the caller stays in
        control.
        """
        for step in count(1):
            if not self._fill(rows, draws):
                return
            finished = self._step()
            if finished or step % YIELD_EVERY == 0:
                yield finished

    def _fill(self, rows: Iterator[Row], draws: Draws) -> bool:
        """Give the next rows to empty slots; returns whether any slot has a text."""
        for slot in self.slots:
            if slot.text is None and (row := next(rows, None)):
                uniform = draws([row]).uniform(self.sampling.max_tokens)[0].cpu().numpy()
                context = self.decoder.context
                slot.start(
                    Text(row, self.tokenizer, self.sampling, context=context, uniform=uniform)
                )
        return any(slot.text for slot in self.slots)

    def _step(self) -> list[Finished]:
        """Read a token in every slot, and choose the next one of each text that is read to its end.

        Returns the texts that have ended; their slots are empty again.
        """
        tokens = torch.tensor([slot.next_token() for slot in self.slots], device=self.device)
        logits = self.decoder.read(tokens)
        if not torch.isfinite(logits.amax(-1)).all():
            raise NonFinite("the model's logits are not finite: its weights are damaged")
        self._choose(
            logits,
            {slot.number: slot.text for slot in self.slots if slot.text and not slot.text.unread},
        )
        finished: list[Finished] = []
        for slot in self.slots:
            if slot.text and slot.text.done:
                finished.append((slot.text.row, slot.text.output))
                slot.text = None
        return finished

    def _choose(self, logits: Tensor, texts: Mapping[int, Text]) -> None:
        """Choose the next token of some texts, by slot, from the logits of all slots (B, V)."""
        if not texts:
            return
        logits[:, Tokenizer.unknown] = -torch.inf
        uniform = [0.0] * len(logits)
        marked: list[Marked | None] = [None] * len(logits)
        for number, text in texts.items():
            uniform[number] = text.restrict(logits[number])
            marked[number] = text.to_mark()
        numbers = torch.tensor(uniform, device=logits.device)
        chosen = choose(logits, numbers, self.sampling, marked).tolist()
        for number, text in texts.items():
            text.add(chosen[number])
