"""Dataset rows and prompts as tokens, by the model's tokenizer and chat template.

As in `worker.feeds.tokens`, `~t` is token t as context only: read, never predicted. A prompt has
the same tokens in training as in generation.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

from db.errors import BadInput, Refused, contained, raise_outage
from worker.conversations import Conversation, Message
from worker.families.hf import Chat
from worker.families.hf.templates import TemplateError, renderer
from worker.feeds.tokenizer import reading_text
from worker.feeds.tokens import document_segments, is_learnt

SAVE_AGAIN = "save the model's tokenizer again, with save_pretrained() of transformers"
Part = tuple[str, bool]  # a text, and whether the model learns to predict it

logging.set_verbosity_error()


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a version's folder; `BadInput` where transformers cannot read it."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BaseException as error:  # the tokenizers library raises bare exceptions, and panics
        raise_outage(error)
        complaint = " ".join(str(contained(error)).split())[:300]
        raise BadInput(
            f"transformers cannot read the tokenizer: {complaint}", remedy=SAVE_AGAIN
        ) from None


class ChatTokenizer:
    """A model's tokenizer with its chat template, if it has one and `chat` allows it."""

    def __init__(self, tokenizer: Any, chat: Chat) -> None:
        self._tokenizer = tokenizer
        self._seen: set[tuple[object, ...]] = set()  # kinds of conversations that it shows whole
        self.chats = chat == "auto" and bool(tokenizer.chat_template)

    @property
    def end(self) -> int | None:
        """The token that ends a text; None if the tokenizer has none."""
        found: int | None = self._tokenizer.eos_token_id
        return found

    def examples(self, row: dict[str, Any]) -> Iterator[list[int]]:
        """A row's examples: one, or several if a template renders earlier turns differently.

        Without a template, messages are plain text, `user: ...`. Raises `BadInput` for a
        conversation that the template cannot show.
        """
        if "text" in row or not self.chats:
            yield self._ids(document_segments(row), special=True)
            return
        messages, tools = self.messages(row), row.get("tools", [])
        self._refuse_hidden(messages, tools)
        for parts in self._turns(messages, tools):
            yield self._ids(parts, special=False)

    def messages(self, row: dict[str, Any]) -> list[Message]:
        """A row's conversation; none of a plain text."""
        if "prompt" in row:
            return [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ]
        return list(row.get("messages", []))

    def prompt(self, asked: str | Conversation, system: str = "") -> list[int]:
        """The tokens that generation continues; for an empty prompt, the one that begins a text.

        Raises `Refused` for a conversation that the template cannot show, or without a template.
        """
        if isinstance(asked, Conversation):
            return self._conversation(asked.messages, system)
        if self.chats and asked:
            return self._conversation([{"role": "user", "content": asked}], system)
        return self._text_prompt(asked, system)

    def _conversation(self, messages: list[Message], system: str) -> list[int]:
        if not self.chats:
            raise Refused(
                "a conversation needs a chat template, but the model has none or chat is never",
                remedy="give prompts of plain text",
            )
        if system and messages[0]["role"] == "system":
            raise Refused(
                "the conversation begins with a system message, and system is set too",
                remedy="leave system out",
            )
        whole = [{"role": "system", "content": system}, *messages] if system else messages
        self._refuse_hidden(whole, begin=True)
        ids = self._encode(self._render(whole, begin=True), special=False)
        if not ids:
            raise Refused(
                "the chat template and the tokenizer make no tokens of a conversation",
                remedy=f"give another one, or {SAVE_AGAIN}",
            )
        return ids

    def _text_prompt(self, text: str, system: str) -> list[int]:
        if system:
            raise Refused(
                "a system message needs a prompt and a chat template, but the prompt is empty, the "
                "model has no template, or chat is never",
                remedy="leave system out",
            )
        ids = self._encode(text, special=True)
        if not ids:
            bos = self._tokenizer.bos_token_id
            begin = self.end if bos is None else bos
            if begin is None:
                raise Refused(
                    "this model's tokenizer has no token that begins a text", remedy="give a prompt"
                )
            return [begin]
        return ids[:-1] if len(ids) > 1 and ids[-1] == self.end else ids

    def plain_tokens(self, text: str) -> list[int]:
        """The tokens of a text alone, without special ones."""
        return self._encode(text, special=False)

    def tokens(self, texts: Sequence[str]) -> set[int]:
        """The added tokens among `texts`, which may be special ones that decoding leaves out."""
        added: dict[str, int] = self._tokenizer.get_added_vocab()
        return {added[text] for text in texts if text in added}

    def text(self, ids: Sequence[int], after: Sequence[int]) -> str:
        """The text of `ids` after other tokens, without an incomplete last character."""
        # a tokenizer may drop a text's leading space, so the token before is decoded too
        last, whole = self._decode(after[-1:]), self._decode([*after[-1:], *ids])
        text = whole.removeprefix(last) if whole.startswith(last) else self._decode(ids)
        return text.rstrip("\ufffd")

    def _ids(self, parts: Sequence[Part], *, special: bool) -> list[int]:
        ids: list[int] = []
        for number, (text, learnt) in enumerate(parts):
            found = self._encode(text, special=special and number == 0)
            if special and number == 0 and len(found) > 1 and found[-1] == self.end:
                found = found[:-1]  # some tokenizers add their end to every text
            ids += found if learnt else [~token for token in found]
        # most templates end a turn themselves, perhaps followed by a line break
        if self.end is not None and parts[-1][1] and self.end not in ids[-2:]:
            ids.append(self.end)
        return ids

    def _turns(self, messages: Sequence[Message], tools: Sequence[Any]) -> Iterator[list[Part]]:
        """The conversation in parts; once per answer if the template renders earlier turns anew."""
        # nothing asks for an assistant's first message before any other, so it is context only
        answers = [i for i, each in enumerate(messages) if i and is_learnt(each)]
        whole: list[Part] = []
        for i in answers:
            parts = self._answer(messages[: i + 1], tools)
            before = "".join(text for text, _ in whole)
            if not parts[0][0].startswith(before):
                yield from (self._answer(messages[: j + 1], tools) for j in answers)
                return
            whole += [(parts[0][0].removeprefix(before), False), parts[1]]
        if whole:
            yield whole

    def _answer(self, messages: Sequence[Message], tools: Sequence[Any]) -> list[Part]:
        """Split a conversation that ends with an answer into what precedes it, and the answer."""
        asked = self._render(messages[:-1], tools, begin=True)
        whole = self._render(messages, tools, begin=False)
        if not whole.startswith(asked):
            # a template may ask for thoughts that the answer does not have
            said = self._render(messages[:-1], tools, begin=False)
            asked = os.path.commonprefix([asked, whole])  # noqa: RUF071 - of texts, not paths
            if len(asked) <= len(said):
                raise BadInput(
                    "the chat template renders an answer differently from the request for one",
                    remedy="set chat=never",
                )
        return [(asked, False), (whole.removeprefix(asked), True)]

    def _refuse_hidden(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), *, begin: bool = False
    ) -> None:
        """Raise `BadInput` where the template leaves out a message, a call or a tool."""
        kinds = (bool(tools), *((each["role"], "tool_calls" in each) for each in messages))
        if kinds in self._seen:
            return
        marked, marked_tools, marks = _marked(messages, tools)
        shown = self._render(marked, marked_tools, begin=begin)
        if hidden := [what for mark, what in marks.items() if mark not in shown]:
            raise BadInput(
                f"the model's chat template leaves out {hidden[0]}",
                remedy="leave them out, or take another model",
            )
        self._seen.add(kinds)

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), *, begin: bool
    ) -> str:
        failure: Exception | None = None
        for form in (list(messages), _with_json_arguments(messages)):
            try:
                return self.render(form, tools, begin=begin)
            except TemplateError as error:
                failure = failure or error
        raise BadInput(
            "the chat template cannot render messages of the roles "
            f"{[each['role'] for each in messages][:8]}: {failure}"
        )

    def render(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), *, begin: bool = False
    ) -> str:
        """A conversation by the template as it is. Raises as `Renderer.render`."""
        try:
            template = self._tokenizer.get_chat_template(tools=list(tools) or None)
        except Exception as error:  # several templates and none to use, or what is none
            raise TemplateError(str(error)) from None
        tokens = self._tokenizer.special_tokens_map
        return renderer.render(template, messages, tools, tokens=tokens, begin=begin)

    def _encode(self, text: str, *, special: bool) -> list[int]:
        with reading_text(text, remedy=f"give another text, or {SAVE_AGAIN}"):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special)
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        with reading_text(ids, remedy=SAVE_AGAIN):
            text: str = self._tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return text


def _marked(
    messages: Sequence[Message], tools: Sequence[Any]
) -> tuple[list[Message], list[Any], dict[str, str]]:
    """Copies that hold marks, and what each stands for, to see what a template leaves out.

    Answers have no marks: a template may leave out the thoughts of an earlier one.
    """
    marks: dict[str, str] = {}

    def mark(what: str) -> str:
        marks[f"q7x{len(marks)}x7q"] = what
        return [*marks][-1]

    def renamed(call: Any, what: str) -> Any:
        if "function" in call:
            return call | {"function": call["function"] | {"name": mark(what)}}
        return call | {"name": mark(what)}

    copies = []
    for each in messages:
        copy = dict(each)
        if each["role"] != "assistant":
            copy["content"] += mark(f"messages of role {each['role']!r}")
        if "tool_calls" in each:
            copy["tool_calls"] = [renamed(call, "calls of tools") for call in each["tool_calls"]]
        copies.append(copy)
    return copies, [renamed(tool, "the tools") for tool in tools], marks


def _with_json_arguments(messages: Sequence[Message]) -> list[Message]:
    """Messages whose calls hold their arguments as JSON, as some templates expect."""
    copies = []
    for each in messages:
        calls = [
            call
            | {
                "function": call["function"]
                | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}
            }
            for call in each.get("tool_calls", ())
        ]
        copies.append(each | ({"tool_calls": calls} if calls else {}))
    return copies
