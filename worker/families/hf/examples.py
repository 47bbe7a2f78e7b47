"""Rows of a dataset and prompts as token ids, by the model's own tokenizer and chat template.

As in `worker.feeds.tokens`, `~t` stands for token t as context alone: read, never predicted. The
prompt of an example has the very tokens that it has when a text is generated from it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

from db.errors import BadInput, Refused
from worker.families.hf import Chat
from worker.feeds.tokens import document_parts

Part = tuple[str, bool]  # a text, and whether a model learns to predict it
Message = dict[str, str]

logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a version's folder; `BadInput` where transformers cannot read it."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare exceptions
        complaint = " ".join(str(error).split())[:300]
        raise BadInput(f"transformers cannot read the tokenizer: {complaint}") from None


class Script:
    """How texts are put to a model: its tokenizer, and the chat template where it is used."""

    def __init__(self, tokenizer: Any, chat: Chat) -> None:
        self._tokenizer = tokenizer
        self.chats = chat == "auto" and bool(tokenizer.chat_template)

    @property
    def end(self) -> int | None:
        """The id that ends a text; None where the tokenizer has none."""
        found: int | None = self._tokenizer.eos_token_id
        return found

    def examples(self, row: dict[str, Any]) -> Iterator[list[int]]:
        """A row's examples: one, but where a template writes earlier turns otherwise than last."""
        if self.chats and "text" not in row:
            for parts in self._turns(_messages(row)):
                yield self._ids(parts, special=False)
        else:
            yield self._ids(document_parts(row), special=True)

    def prompt(self, text: str, system: str = "") -> list[int]:
        """The ids that a text is generated after; of an empty prompt, what begins a text."""
        if self.chats and text:
            asked = [{"role": "system", "content": system}] if system else []
            shown = self._render([*asked, {"role": "user", "content": text}], begin=True)
            return self._encode(shown, special=False)
        if system:
            raise Refused(
                "system goes before a prompt, by a chat template: here the prompt is empty, the "
                "model has no template, or chat is never; leave it out"
            )
        ids = self._encode(text, special=True) or self._beginning()
        return ids[:-1] if len(ids) > 1 and ids[-1] == self.end else ids

    def tokens(self, texts: Sequence[str]) -> set[int]:
        """The ids of those texts that are a token each; a special one is in no text as decoded."""
        added: dict[str, int] = self._tokenizer.get_added_vocab()
        return {added[text] for text in texts if text in added}

    def text(self, ids: Sequence[int], after: Sequence[int]) -> str:
        """What ids say where they follow others, without a character that was cut in two."""
        # a tokenizer may drop the space that a text begins with, so one token before is read too
        last, whole = self._decode(after[-1:]), self._decode([*after[-1:], *ids])
        text = whole.removeprefix(last) if whole.startswith(last) else self._decode(ids)
        return text.rstrip("\ufffd")

    def _ids(self, parts: Sequence[Part], *, special: bool) -> list[int]:
        ids: list[int] = []
        for number, (text, learnt) in enumerate(parts):
            found = self._encode(text, special=special and number == 0)
            if special and number == 0 and len(found) > 1 and found[-1] == self.end:
                found = found[:-1]  # some tokenizers end each text
            ids += found if learnt else [~token for token in found]
        # a template mostly ends a turn itself, perhaps with a line break after the end
        if self.end is not None and parts[-1][1] and self.end not in ids[-2:]:
            ids.append(self.end)
        return ids

    def _turns(self, messages: Sequence[Message]) -> Iterator[list[Part]]:
        """The conversation in parts; or one of each answer, where its parts are no prefixes."""
        # templates cannot ask for what nothing is before, so that an opening is context alone
        answers = [i for i, each in enumerate(messages) if i and each["role"] == "assistant"]
        whole: list[Part] = []
        for i in answers:
            parts = self._answer(messages[: i + 1])
            before = "".join(text for text, _ in whole)
            if not parts[0][0].startswith(before):
                yield from (self._answer(messages[: j + 1]) for j in answers)
                return
            whole += [(parts[0][0].removeprefix(before), False), parts[1]]
        if whole:
            yield whole

    def _answer(self, messages: Sequence[Message]) -> list[Part]:
        """A conversation that ends with an answer: what is before it, and the answer."""
        asked = self._render(messages[:-1], begin=True)
        whole = self._render(messages, begin=False)
        if not whole.startswith(asked):
            raise BadInput(
                "the chat template writes an answer otherwise than it asks for one: set chat=never"
            )
        return [(asked, False), (whole.removeprefix(asked), True)]

    def _render(self, messages: Sequence[Message], *, begin: bool) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=begin
            )
        except Exception as error:  # a template raises what it likes
            raise BadInput(
                f"the chat template refuses {[each['role'] for each in messages][:8]}: {error}"
            ) from None
        return text

    def _encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special)
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _beginning(self) -> list[int]:
        first = self._tokenizer.bos_token_id
        first = self.end if first is None else first
        if first is None:
            raise Refused("this model's tokenizer has no token that begins a text: give a prompt")
        return [first]


def _messages(row: dict[str, Any]) -> list[Message]:
    if "messages" in row:
        return list(row["messages"])
    asked = {"role": "user", "content": row["prompt"]}
    return [asked, {"role": "assistant", "content": row["completion"]}]
