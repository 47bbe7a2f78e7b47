"""Forwards of a model of `transformers`: the loss of packed rows, and the logits of next tokens."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100


def total_loss(model: Any, data: Tensor, *, packed: bool) -> Tensor:
    """The sum over predicted tokens of their cross-entropy in nats, from data (B, 2, T).

    Unless rows are `packed`, the model numbers the tokens itself; padding follows the example.
    """
    tokens, positions = data.unbind(1)
    ids, given = torch.maximum(tokens, ~tokens), {"position_ids": positions} if packed else {}
    logits = model(input_ids=ids, use_cache=False, **given).logits  # (B, T, V)
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        targets(data).flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def targets(data: Tensor) -> Tensor:
    """The token after each but the last, (B, T - 1); `IGNORED` where nothing is predicted.

    An example's first token is never predicted, because the tokens before it are another's.
    """
    tokens, positions = data[:, 0, 1:], data[:, 1, 1:]
    return torch.where((tokens < 0) | (positions == 0), IGNORED, tokens)


def read_on(
    model: Any, ids: Tensor, mask: Tensor, cache: Any, *, positions: int
) -> tuple[Tensor, Any]:
    """Read ids (B, t) after those in the cache; returns logits float32 (B, V) and the cache.

    `mask` (B, T) is 1 where a position, old or new, has a token.
    """
    # ended texts are read along with the others, even beyond the last position
    position_ids = (mask.cumsum(1) - 1).clamp(0, positions - 1)[:, -ids.shape[1] :]
    read = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids,
        past_key_values=cache,
        use_cache=True,
    )
    return read.logits[:, -1].float(), read.past_key_values


def read_again(
    model: Any, ids: Tensor, mask: Tensor, cache: Any, *, positions: int
) -> tuple[Tensor, Any]:
    """`read_on` for a model without a cache of keys and values: whole texts are read again.

    In place of a cache there are the tokens before. A text is padded on the right, where padding
    changes nothing that a causal model has read.
    """
    tokens = ids if cache is None else torch.cat((cache, ids), 1)
    width = min(tokens.shape[1], positions)
    texts = tokens.gather(1, mask.argsort(dim=1, descending=True, stable=True))[:, :width]
    last = mask.sum(1).clamp(1, width) - 1
    logits = model(input_ids=texts, use_cache=False).logits
    return logits[torch.arange(len(last)), last].float(), tokens
