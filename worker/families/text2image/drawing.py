"""Drawing a picture's tokens one after another, with classifier-free guidance and a cache."""

import torch
from torch import Tensor

from db.errors import NonFinite
from worker.families.text2image import Sampling
from worker.families.text2image.prior import Prior
from worker.networks.token_choice import choose


def draw_tokens(
    prior: Prior, captions: Tensor, nothing: Tensor, numbers: Tensor, sampling: Sampling
) -> Tensor:
    """Tokens int64 (B, N) for captions (B, T), by numbers (B, N) in [0, 1).

    `nothing` (T,) is the caption of a picture that has none. With guidance each row is read twice,
    with its caption and with none, in one forward of 2 B rows.
    """
    guided = sampling.guidance != 1
    read = torch.cat((captions, nothing.expand_as(captions))) if guided else captions
    cache = prior.cache(read)
    logits, tokens = prior.begin(read, cache), list[Tensor]()
    for place in range(numbers.shape[1]):
        if place:
            last = tokens[-1]
            logits = prior.go_on(torch.cat((last, last)) if guided else last, place - 1, cache)
        if not torch.isfinite(logits).all():
            raise NonFinite("the model's logits are not finite: its weights are damaged")
        wanted = guide(logits, sampling.guidance) if guided else logits
        tokens.append(choose(wanted, numbers[:, place], sampling))
    return torch.stack(tokens, 1)


def guide(logits: Tensor, scale: float) -> Tensor:
    """Guided logits u + scale (c - u), (B, V), of (2 B, V): first the conditional c, then u.

    Ho, Salimans 2022, arXiv:2207.12598, eq. 6, whose w is scale - 1.
    """
    conditional, unconditional = logits.chunk(2)
    return unconditional + scale * (conditional - unconditional)
