"""Writing texts in lanes: each step every lane reads one token, and a lane that ends takes a row.

(Continuous batching: Yu et al. 2022, "Orca".) Prompts are read by the same steps that write, or
in chunks of one size by a lane alone; every step has the same number of lanes. So a text depends
on its own tokens and numbers alone, never on its neighbours, its lane or the step when it begins.

A prompt may end inside what the tokenizer would join ("The " before " cat"). So its last token is
chosen again, among those that begin with the same letters ("token healing", Lundberg 2023).
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from db.errors import NonFinite
from worker.feeds.tokenizer import Tokenizer
from worker.networks.network import Draw, Draws, Made, Row
from worker.networks.text_sampling import TextSampling
from worker.networks.token_choice import choose

Numbers = npt.NDArray[np.float32]

TELL = 16  # steps without a finished text after which whoever waits hears that work goes on


class Decoder(Protocol):
    """What a model has read, a text a lane; a new one has read nothing.

    A lane's logits depend, bit for bit, on what it has read since its last reset and on nothing
    else: not on the other lanes, its place among them, or what it had read before.
    """

    @property
    def room(self) -> int | None:
        """The most tokens that a lane can read between two resets, at least 2; None: no limit."""

    def reset(self, lane: int) -> None:
        """Forget what a lane has read."""

    def read(self, tokens: Tensor) -> Tensor:
        """Each lane reads one token more, int64 (B,): logits of the next ones, float32 (B, V).

        -inf stands for what cannot follow. The logits belong to the caller, who may change them.
        """


@runtime_checkable
class Foreseeing(Decoder, Protocol):
    """A decoder that reads tokens which are known already, as of a prompt, many at once."""

    @property
    def ahead(self) -> int:
        """The tokens that `read_ahead` takes, always as many, so that it has one shape."""

    def read_ahead(self, lane: int, tokens: Tensor) -> None:
        """One lane alone reads `ahead` tokens more, int64 (ahead,)."""


def write(lanes: "Lanes", rows: Iterator[Row], draw: Draws) -> Iterator[list[Made]]:
    """Write a text for each row, an empty prompt beginning a new document.

    Yields the texts as they end, and now and then nothing, so that the caller may look around.
    """
    for step in count(1):
        if not lanes.fill(rows, draw):
            return
        made = lanes.step()
        if made or step % TELL == 0:
            yield made


class Text:
    """One row's text: its `tokens`, of which the first `read` are read, and what is `written`.

    `numbers`, uniform in [0, 1), choose the tokens: number k the k-th that is written.
    """

    def __init__(
        self, row: Row, tokenizer: Tokenizer, sampling: TextSampling, *, room: int, numbers: Numbers
    ) -> None:
        self.row = row
        self.tokens = [tokenizer.end, *tokenizer.encode(row.prompt or "")][-room:]
        ending = tokenizer.ending(row.prompt or "")
        again = tokenizer.completions(ending)
        # what may come first, [] for any token; nothing to choose where only the last one begins so
        self.first = again if set(again) - {self.tokens[-1]} else []
        self._again = ending if self.first else ""
        self.tokens = self.tokens[:-1] if self.first else self.tokens
        self.read = 0
        self.count = 0  # tokens written
        self.written = ""
        self.done = False
        self._tokenizer, self._sampling, self._numbers = tokenizer, sampling, numbers

    @property
    def unread(self) -> int:
        """Tokens to read before the next one can be written."""
        return len(self.tokens) - self.read

    def next(self, count: int) -> list[int]:
        """The next tokens to read, which are read then."""
        self.read += count
        return self.tokens[self.read - count : self.read]

    @property
    def number(self) -> float:
        """What chooses the next token."""
        return float(self._numbers[self.count])

    def add(self, token: int) -> None:
        """Take the next token; note whether it, a stop string or the limit ends the text."""
        before = len(self.written)
        piece = self._tokenizer.pieces[token]
        self.written += piece if self.count else piece.removeprefix(self._again)
        self.tokens.append(token)
        self.count += 1
        self.done = token == self._tokenizer.end or self.count >= self._sampling.max_tokens
        found = (self.written.find(s, max(before - len(s) + 1, 0)) for s in self._sampling.stop)
        stops = [at for at in found if at >= 0]
        if stops:
            self.written, self.done = self.written[: min(stops)], True


class Lane:
    """A place in the batch and the text in it; one that waits reads `padding`."""

    def __init__(self, place: int, decoder: Decoder, padding: int, device: torch.device) -> None:
        self.place, self.decoder, self.padding, self.device = place, decoder, padding, device
        self.text: Text | None = None
        self._remembered = 0  # tokens that the decoder has read since the last reset
        self._foreseeing = decoder if isinstance(decoder, Foreseeing) else None

    def take(self, text: Text) -> None:
        """Begin a text."""
        self.text = text
        self._forget()

    def token(self) -> int:
        """The token to read now. A full lane forgets, and reads its last half again."""
        if self._remembered == self.decoder.room:
            self._forget()
            if self.text:
                self.text.read = len(self.text.tokens) - self.decoder.room // 2
        if self._foreseeing:
            self._read_ahead(self._foreseeing)
        self._remembered += 1
        return self.text.next(1)[0] if self.text else self.padding

    def _read_ahead(self, decoder: Foreseeing) -> None:
        """Read what is known already but for the last, for the next token follows from it."""
        while decoder.ahead and self.text and self.text.unread > decoder.ahead:
            tokens = self.text.next(decoder.ahead)
            decoder.read_ahead(self.place, torch.tensor(tokens, device=self.device))
            self._remembered += decoder.ahead

    def _forget(self) -> None:
        self.decoder.reset(self.place)
        self._remembered = 0


class Lanes:
    """Texts under way, as many as `sampling.micro_batch` at once."""

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, sampling: TextSampling, device: torch.device
    ) -> None:
        self.decoder, self.tokenizer, self.sampling = decoder, tokenizer, sampling
        self.device = device
        self.lanes = [Lane(i, decoder, tokenizer.end, device) for i in range(sampling.micro_batch)]

    def fill(self, rows: Iterator[Row], draw: Draws) -> bool:
        """Give the next rows to lanes that wait; whether any text is under way."""
        for lane in self.lanes:
            if lane.text is None and (row := next(rows, None)):
                lane.take(self._text(row, draw([row.index])))
        return any(lane.text for lane in self.lanes)

    def step(self) -> list[Made]:
        """Every lane reads a token, and where that was a text's last one, writes the next.

        Gives the texts that this has ended, whose lanes wait for others now.
        """
        tokens = torch.tensor([lane.token() for lane in self.lanes], device=self.device)
        logits = self.decoder.read(tokens)
        if not torch.isfinite(logits.amax(-1)).all():
            raise NonFinite("the model's logits are not finite: its weights are damaged")
        writing = {
            lane.place: lane.text for lane in self.lanes if lane.text and not lane.text.unread
        }
        if writing:
            for place, token in zip(writing, self._choose(logits, writing), strict=True):
                writing[place].add(token)
        return [self._end(lane) for lane in self.lanes if lane.text and lane.text.done]

    def _text(self, row: Row, draw: Draw) -> Text:
        numbers = draw.uniform(self.sampling.max_tokens)[0].cpu().numpy()
        room = self.decoder.room or sys.maxsize
        return Text(row, self.tokenizer, self.sampling, room=room, numbers=numbers)

    def _choose(self, logits: Tensor, writing: Mapping[int, Text]) -> list[int]:
        """The next token of each text that writes, from all lanes' logits (B, V)."""
        logits[:, Tokenizer.unknown] = -torch.inf
        numbers = torch.zeros(len(logits))
        for place, text in writing.items():
            numbers[place] = text.number
            if text.first and not text.count:
                logits[place] = _only(logits[place], text.first)
        chosen = choose(logits, numbers.to(logits.device), self.sampling).tolist()
        return [chosen[place] for place in writing]

    @staticmethod
    def _end(lane: Lane) -> Made:
        text, lane.text = cast(Text, lane.text), None
        return text.row, text.written


def _only(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """Logits (V,) of some tokens, the others impossible."""
    kept = torch.full_like(logits, -torch.inf)
    kept[list(tokens)] = logits[list(tokens)]
    return kept
