"""Writing texts: one token a row and step, all rows at the same position, with a KV cache.

Prompts are read by the same steps that write, so a row's numbers depend on its own tokens and the
position alone, never on its neighbours' prompts or on when they end. When the cache is full, the
last half of the context is read again at once, at the same positions for every row.

A prompt may end inside what the tokenizer would join ("The " before " cat"). So its last token is
chosen again, among those that begin with the same letters ("token healing", Lundberg 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from db.errors import NonFinite
from worker.data.tokenizer import Tokenizer
from worker.families.gpt import GptSampling
from worker.families.gpt.cache import Cache
from worker.families.gpt.choose import choose

if TYPE_CHECKING:
    from worker.families.gpt.model import Transformer
    from worker.families.network import Draw


def write_texts(
    network: Transformer, prompts: Sequence[str], draw: Draw, sampling: GptSampling
) -> list[str]:
    """The continuation of each prompt; an empty prompt begins a new document."""
    assert network.tokenizer is not None  # noqa: S101 - `sample` has checked, this tells mypy
    texts = [Text(network.tokenizer, p, network.params.context, sampling) for p in prompts]
    longest = max(text.read for text in texts)
    ids = np.full((len(texts), longest + sampling.max_tokens), network.tokenizer.end)
    for row, text in enumerate(texts):
        ids[row, : text.read] = text.ids
    numbers = draw.uniform(sampling.max_tokens)  # (B, max_tokens)
    cache = Cache(network.params.layers, network.params.context)
    for position in range(1, ids.shape[1]):
        logits = _next_logits(network, ids[:, :position], cache)
        for row, text in enumerate(texts):
            if position == text.read and text.first:
                logits[row] = _only(logits[row], text.first)
        chosen = choose(logits, _numbers_at(position, texts, numbers), sampling).tolist()
        for row, text in enumerate(texts):
            if position >= text.read and not text.done:
                text.add(chosen[row])
                ids[row, position] = chosen[row]
        if all(text.done for text in texts):
            break
    return [text.written for text in texts]


class Text:
    """One row: the `ids` that it reads first, and what is `written` after them."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: str, context: int, sampling: GptSampling
    ) -> None:
        self.ids = [tokenizer.end, *tokenizer.encode(prompt)][-context:]
        again = tokenizer.completions(tokenizer.pieces[self.ids[-1]])
        self.first = again if len(again) > 1 else []  # what may come first; [] for any token
        self._again = tokenizer.pieces[self.ids.pop()] if self.first else ""
        self.read = len(self.ids)
        self.written = ""
        self.done = False
        self._tokenizer, self._sampling = tokenizer, sampling
        self._tokens = 0

    def add(self, token: int) -> None:
        """Take the next token; note whether it, a stop string or the limit ends the text."""
        before = len(self.written)
        piece = self._tokenizer.pieces[token]
        self.written += piece if self._tokens else piece.removeprefix(self._again)
        self._tokens += 1
        self.done = token == self._tokenizer.end or self._tokens >= self._sampling.max_tokens
        found = (self.written.find(s, max(before - len(s) + 1, 0)) for s in self._sampling.stop)
        stops = [at for at in found if at >= 0]
        if stops:
            self.written, self.done = self.written[: min(stops)], True


def _next_logits(network: Transformer, ids: npt.NDArray[np.int64], cache: Cache) -> Tensor:
    """Logits (B, V) of the token after ids (B, t); all of them but the newest were read before."""
    if cache.full:
        cache.clear()
        ids = ids[:, -(cache.context // 2) :]
    else:
        ids = ids[:, -1:]
    device = network.embedding.weight.device
    logits: Tensor = network(torch.from_numpy(ids).to(device), cache)[:, -1]
    cache.advance(ids.shape[1])
    if not torch.isfinite(logits).all():
        raise NonFinite("the model's logits are not finite: its weights are damaged")
    logits[:, Tokenizer.unknown] = -torch.inf
    return logits


def _only(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """Logits (V,) of some tokens, the others impossible."""
    kept = torch.full_like(logits, -torch.inf)
    kept[list(tokens)] = logits[list(tokens)]
    return kept


def _numbers_at(position: int, texts: Sequence[Text], numbers: Tensor) -> Tensor:
    """Each row's number for its token at `position`: number k is for the k-th that it writes."""
    places = [min(max(position - text.read, 0), numbers.shape[1] - 1) for text in texts]
    return numbers[torch.arange(len(texts)), places]
