"""Special tokens as a base's `generation_config.json` states them: anything may stand there."""

from typing import Any


def embeddings(model: Any) -> int:
    """How many tokens a model has a vector for."""
    return int(model.get_input_embeddings().weight.shape[0])


def stated(model: Any, key: str) -> list[Any]:
    """What stands under a key such as `eos_token_id`: one value or several."""
    found = getattr(model.generation_config, key, None)
    return [each for each in (found if isinstance(found, list) else [found]) if each is not None]


def known(model: Any, key: str) -> list[int]:
    """Those of the stated values that are tokens of the model."""
    return [each for each in stated(model, key) if is_token(each, embeddings(model))]


def is_token(value: Any, size: int) -> bool:
    """Whether a value is the number of one of `size` tokens."""
    return type(value) is int and 0 <= value < size
