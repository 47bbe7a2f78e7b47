"""What a model of `transformers` can do, found by trying it on a few tokens.

Each answer compares logits. Where tokens must have no influence, they are changed: then nothing may
differ, however small the weights are.
"""

from typing import Any

import torch
from torch import Tensor

from db.errors import NonFinite
from worker.families.hf.base import CODE_ERRORS

LENGTH = 12  # tokens; half of them are read first, or belong to another example


def reads_ahead(model: Any) -> bool:
    """Whether later tokens change the logits of earlier ones, as in models that are not causal."""
    ids, others = _ids(model), _other_ids(model)
    one, other = (_logits(model, torch.cat((ids, more), 1)) for more in (ids, others))
    half = ids.shape[1]
    return _differ(one[:, :half], other[:, :half], exactly=True)


def has_cache(model: Any) -> bool:
    """Whether the model continues a padded text from a cache of keys and values as it should."""
    ids = _ids(model)
    padded = torch.nn.functional.pad(ids, (3, 0))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (3, 0))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = None
    try:
        with torch.inference_mode():
            for part in (slice(0, -2), slice(-2, -1), slice(-1, None)):
                read = model(
                    input_ids=padded[:, part],
                    attention_mask=mask[:, : part.stop or mask.shape[1]],
                    position_ids=positions[:, part],
                    past_key_values=cache,
                    use_cache=True,
                )
                cache = read.past_key_values
    except CODE_ERRORS:
        return False
    return cache is not None and not _differ(read.logits[:, -1], _logits(model, ids)[:, -1])


def reads_position(model: Any, position: int) -> bool:
    """Whether the model reads a token at a position."""
    ids = _ids(model)[:, :1]
    try:
        _logits(model, ids, position_ids=torch.full_like(ids, position))
    except CODE_ERRORS:
        return False
    return True


def supports_packing(model: Any) -> bool:
    """Whether the model keeps examples that are packed into one row apart.

    A model passes if it takes position 0 for the start of an example. One that ignores positions,
    or carries a state from token to token, does not. Raises `NonFinite` where logits are.
    """
    ids, others = _ids(model), _other_ids(model)
    places = torch.arange(ids.shape[1], device=ids.device)[None]
    positions = torch.cat((places, places), 1)
    alone = _logits(model, ids)
    if not torch.isfinite(alone).all():
        raise NonFinite("the base's logits are not finite: its weights are damaged")
    one, other = (
        _logits(model, torch.cat((first, ids), 1), position_ids=positions)[:, ids.shape[1] :]
        for first in (ids, others)
    )
    return not _differ(one, other, exactly=True) and not _differ(one, alone)


def _ids(model: Any) -> Tensor:
    """Some tokens, int64 (1, LENGTH / 2)."""
    embeddings = model.get_input_embeddings().weight
    size = min(int(embeddings.shape[0]), 64)
    return torch.arange(1, 1 + LENGTH // 2, device=embeddings.device).remainder(size)[None]


def _other_ids(model: Any) -> Tensor:
    """As many others."""
    return _ids(model).flip(1)


def _logits(model: Any, ids: Tensor, **given: Tensor) -> Tensor:
    """The logits of all tokens, read without a cache, (1, T, V)."""
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids, use_cache=False, **given).logits
    return logits


def _differ(one: Tensor, other: Tensor, *, exactly: bool = False) -> bool:
    """Whether logits differ by more than rounding; `exactly`: computed in the same way."""
    share = 1e-5 if exactly else 1e-4 if one.dtype == torch.float32 else 0.05
    one, other = one.float(), other.float()
    return bool((one - other).abs().max() > share * other.abs().max())
