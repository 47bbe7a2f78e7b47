"""A text that a model of `transformers` generates, and the padding of its prompt."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from worker.families.hf.chat_tokenizer import ChatTokenizer
from worker.networks.network import Row
from worker.networks.token_watermark import Marked, MarkedText

STRIDE = 32  # padded prompts are multiples of this many tokens
BYTES = 4  # the most of a character in UTF-8, and so the most tokens of one


@dataclass
class Text:
    """One row's text so far."""

    row: Row
    prompt: list[int]
    max_tokens: int
    tokens: list[int] = field(default_factory=list)  # generated
    output: str = ""
    done: bool = False
    watermark: MarkedText = field(init=False)

    def __post_init__(self) -> None:
        row = self.row
        self.watermark = MarkedText(row.watermark_key, seed=row.seed, index=row.index)

    def to_mark(self) -> Marked | None:
        """The next token, if it is to carry a watermark."""
        return None if self.done else self.watermark.next(self.tokens, len(self.tokens))

    @property
    def padded_length(self) -> int:
        """Tokens of the padded prompt, at least one of them padding."""
        return (len(self.prompt) // STRIDE + 1) * STRIDE

    @property
    def padding(self) -> int:
        """Tokens before the prompt."""
        return self.padded_length - len(self.prompt)

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


def pad(texts: Sequence[Text], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left, int64 (B, padded length), and a mask that is 1 at tokens."""
    ids = torch.zeros(len(texts), texts[0].padded_length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, -len(text.prompt) :] = torch.tensor(text.prompt)
        mask[row, -len(text.prompt) :] = 1
    return ids.to(device), mask.to(device)
