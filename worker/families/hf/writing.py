"""Writing texts with a model of `transformers`: rows of like length at once, with its own cache.

A prompt is filled up from the left to the next multiple of `STRIDE` tokens, one at least, and a
forward always has `micro_batch` rows. So its shape is a function of the prompt alone, and with it
every number of a text, whoever its neighbours are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from db.errors import NonFinite, Refused
from worker.families.hf import HfSampling
from worker.networks.token_choice import choose

if TYPE_CHECKING:
    from worker.families.hf.examples import Script
    from worker.families.hf.model import CausalModel
    from worker.networks.network import Draws, Made, Row

STRIDE = 32  # tokens by which prompts are rounded up
WINDOW = 16  # micro-batches of rows that are looked at to find rows of like length
BYTES = 4  # of a character at the most, and so of tokens that it takes
TELL = 16  # tokens after which whoever waits hears that work goes on


@dataclass
class Text:
    """One row's text: the ids that it goes on from, what is written, and whether it has ended."""

    row: Row
    prompt: list[int]
    limit: int  # tokens to write at the most
    written: list[int] = field(default_factory=list)
    said: str = ""
    done: bool = False

    @property
    def bucket(self) -> int:
        """Positions that the prompt takes, one at least of them empty."""
        return (len(self.prompt) // STRIDE + 1) * STRIDE

    def add(self, token: int, ends: Set[int], stop: Sequence[str], script: Script) -> None:
        """Take the next token; note whether it, a stop text or the limit ends the text."""
        ended = token in ends
        if not ended:
            self.written.append(token)
        self.done = ended or len(self.written) >= self.limit
        if self.done or self._may_stop(stop, script):
            self.said = script.text(self.written, self.prompt)
        stops = [at for at in (self.said.find(each) for each in stop) if at >= 0]
        if stops:
            self.said, self.done = self.said[: min(stops)], True

    def _may_stop(self, stop: Sequence[str], script: Script) -> bool:
        """Whether the last tokens say a stop text; reading all of them each time takes long."""
        if not stop:
            return False
        reach = BYTES * max(map(len, stop)) + 1
        last = script.text(self.written[-reach:], self.written[:-reach] or self.prompt)
        return any(each in last for each in stop)


def write(
    network: CausalModel, rows: Iterator[Row], draws: Draws, sampling: HfSampling
) -> Iterator[list[Made]]:
    """Write a text for each row, a group of like length at a time; now and then yields nothing."""
    script = network.script(sampling.chat)
    while some := list(islice(rows, WINDOW * sampling.micro_batch)):
        texts = [_begin(network, script, row, sampling) for row in some]
        for bucket in sorted({text.bucket for text in texts}):
            alike = iter([text for text in texts if text.bucket == bucket])
            while group := list(islice(alike, sampling.micro_batch)):
                yield from _write_group(network, script, group, draws, sampling)
                yield [(text.row, text.said) for text in group]


def _begin(network: CausalModel, script: Script, row: Row, sampling: HfSampling) -> Text:
    prompt = script.prompt(row.prompt or "", sampling.system)
    room = network.positions - len(prompt)
    if room < 1:
        raise Refused(
            f"prompt {row.index} has {len(prompt)} tokens; this model takes at most "
            f"{network.positions - 1}: shorten it"
        )
    return Text(row, prompt, min(sampling.max_tokens, room))


def _write_group(
    network: CausalModel, script: Script, group: list[Text], draws: Draws, sampling: HfSampling
) -> Iterator[list[Made]]:
    """Write texts of one bucket, as many rows as ever: the last one again where there are fewer."""
    rows = [*group, *[group[-1]] * (sampling.micro_batch - len(group))]
    numbers = draws([text.row.index for text in rows]).uniform(sampling.max_tokens)
    ids, mask = _filled_up(rows, numbers.device)
    ends = network.ends | script.tokens(sampling.stop)
    cache: Any = None
    for step in range(sampling.max_tokens):
        logits, cache = network.next_logits(ids, mask, cache)
        if not torch.isfinite(logits).all():
            raise NonFinite("the model's logits are not finite: its weights are damaged")
        chosen = choose(logits, numbers[:, step], sampling)  # (B,)
        for text, token in zip(group, chosen.tolist(), strict=False):
            if not text.done:
                text.add(token, ends, sampling.stop, script)
        if all(text.done for text in group):
            return
        ids = chosen[:, None]
        mask = torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)
        if step % TELL == TELL - 1:
            yield []


def _filled_up(texts: Sequence[Text], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts, int64 (B, bucket), filled up from the left, and where they have tokens."""
    ids = torch.zeros(len(texts), texts[0].bucket, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, -len(text.prompt) :] = torch.tensor(text.prompt)
        mask[row, -len(text.prompt) :] = 1
    return ids.to(device), mask.to(device)
