"""Sampling an image's tokens autoregressively, with classifier-free guidance and a cache."""

import torch
from torch import Tensor

from db.errors import NonFinite
from worker.families.text2image import Sampling
from worker.families.text2image.prior import Prior
from worker.networks.token_choice import choose


def sample_tokens(
    prior: Prior, captions: Tensor, empty: Tensor, numbers: Tensor, sampling: Sampling
) -> Tensor:
    """Tokens int64 (B, N) for captions (B, T), by uniform numbers (B, N) in [0, 1).

    `empty` (T,) is the empty caption. With guidance, each forward pass has 2 B rows: those with
    captions, then the same with the empty caption.
    """
    guided = sampling.guidance != 1
    prompts = torch.cat((captions, empty.expand_as(captions))) if guided else captions
    cache = prior.cache(prompts)
    logits, tokens = prior.prefill(prompts, cache), list[Tensor]()
    for place in range(numbers.shape[1]):
        if place:
            last = tokens[-1]
            logits = prior.step(torch.cat((last, last)) if guided else last, place - 1, cache)
        if not torch.isfinite(logits).all():
            raise NonFinite("the model's logits are not finite: its weights are damaged")
        guided_logits = guide(logits, sampling.guidance) if guided else logits
        tokens.append(choose(guided_logits, numbers[:, place], sampling))
    return torch.stack(tokens, 1)


def guide(logits: Tensor, scale: float) -> Tensor:
    """Guided logits u + scale (c - u), (B, V), from (2 B, V): conditional c, then unconditional u.

    Ho, Salimans 2022, arXiv:2207.12598, eq. 6, whose w is scale - 1.
    """
    conditional, unconditional = logits.chunk(2)
    return unconditional + scale * (conditional - unconditional)
