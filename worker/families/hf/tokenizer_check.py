"""Whether a tokenizer, its special tokens and its chat template fit a base that is imported."""

from contextlib import suppress
from typing import Any

from db.errors import BadInput
from worker.families.hf.chat_tokenizer import SAVE_AGAIN, ChatTokenizer
from worker.families.hf.special_tokens import embeddings, is_token, known, stated
from worker.families.hf.templates import TemplateError, TemplateSyntax

PROBED = 8  # tokens, from all of the vocabulary, that are decoded and encoded again


def check_tokenizer(model: Any, tokenizer: Any) -> list[str]:
    """Refuse a tokenizer that does not fit; returns what is odd but does no harm.

    Raises `BadInput` for tokens that the model does not know, for texts that would never end, and
    for a tokenizer or a template that cannot be used at all.
    """
    size = embeddings(model)
    _refuse_unfit(tokenizer, size)
    _refuse_endless(model, tokenizer, size)
    _try_template(tokenizer)
    return [*_strange_tokens(model, size), *_differences(model, tokenizer)]


def _refuse_unfit(tokenizer: Any, size: int) -> None:
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise BadInput("the tokenizer has no tokens", remedy=SAVE_AGAIN)
    if largest >= size:
        raise BadInput(
            f"the tokenizer has {largest + 1} tokens, but the model has {size} embeddings",
            remedy="call resize_token_embeddings and save the model again, or take the tokenizer "
            "without the tokens that were added",
        )
    _refuse_silent(ChatTokenizer(tokenizer, "never"), largest)


def _refuse_silent(plain: ChatTokenizer, largest: int) -> None:
    """Refuse a tokenizer that cannot read what it writes, or makes nothing of it."""
    text = plain.text([*range(0, largest + 1, largest // PROBED + 1)], [])
    for ids in plain.examples({"text": text}):
        if text.strip() and not {*ids} - {plain.end}:
            raise BadInput(
                f"the tokenizer makes no tokens of {text[:40]!r}, which it wrote itself",
                remedy=SAVE_AGAIN,
            )


def _refuse_endless(model: Any, tokenizer: Any, size: int) -> None:
    ends = stated(model, "eos_token_id")
    if ends and tokenizer.eos_token_id is None and not known(model, "eos_token_id"):
        raise BadInput(
            f"the model's eos_token_id is {ends}, but it has {size} embeddings, and the "
            "tokenizer has no eos_token: no text would end",
            remedy="correct generation_config.json",
        )


def _try_template(tokenizer: Any) -> None:
    """Refuse a template that is not one; that it refuses some roles is found out by a job."""
    if not tokenizer.chat_template:
        return
    with suppress(TemplateError):  # it may want other roles
        try:
            ChatTokenizer(tokenizer, "auto").render([{"role": "user", "content": "x"}])
        except TemplateSyntax as error:
            raise BadInput(
                f"the chat template cannot be read: {error.message}",
                remedy="correct it, or remove it from the folder",
            ) from None


def _strange_tokens(model: Any, size: int) -> list[str]:
    return [
        f"{key} is {each!r}, but the model's tokens are 0 to {size - 1}: it is not used"
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        for each in stated(model, key)
        if not is_token(each, size)
    ]


def _differences(model: Any, tokenizer: Any) -> list[str]:
    """Where the model's generation settings and the tokenizer disagree, and which one counts."""
    counts = {"eos_token_id": "either ends a text", "bos_token_id": "the tokenizer's is used"}
    found = []
    for key, what in counts.items():
        ids, own = known(model, key), getattr(tokenizer, key)
        if ids and own is not None and own not in ids:
            shown = ", ".join(map(str, ids))
            found.append(f"{key} is {shown}, but {own} by the tokenizer: {what}")
    return found
