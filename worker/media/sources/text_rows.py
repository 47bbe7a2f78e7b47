"""Rows of text that people have, as the three forms of rows of a dataset: see `LocalDataset`."""

from collections.abc import Iterable
from typing import Any

from db.errors import BadInput
from worker.conversations import Message, parse_messages, parse_tools

Row = dict[str, Any]

# of a question and its answer, in Alpaca, Dolly and others
_ASKED = ("instruction", "prompt", "question", "query", "input")
_ABOUT = ("input", "context")  # a text that the question is about
_ANSWERS = ("output", "response", "answer")


def known_row(data: Row) -> Row:
    """The row in one of the three forms; `BadInput` if it has none of the known keys.

    Rows of Alpaca (`instruction`, `input`, `output`), of Dolly and of questions with answers become
    prompts with completions, those of ShareGPT (`conversations` of `from` and `value`) become
    messages. So do a prompt and a completion that hold messages; the prompt's are not learnt.
    """
    if isinstance(data.get("text"), str) and data["text"]:
        return {"text": data["text"]}
    if _holds(data, "prompt", "completion"):
        return _of_completion(data)
    for key in ("messages", "conversations"):
        if isinstance(data.get(key), list) and data[key]:
            return _talk(data, parse_messages(data[key]))
    asked, answer = _text_key(data, _ASKED), _text_key(data, _ANSWERS)
    if asked and answer:
        return _of_alpaca(data, asked, answer)
    keys = ", ".join(map(str, [*data][:8]))
    raise BadInput(
        'holds none of "text", "prompt" with "completion", and "messages"'
        + (f", only {keys[:200]}" if keys else ""),
        remedy="give one of them, not empty",
    )


def _holds(data: Row, *keys: str) -> bool:
    """Whether each key holds a text or a list of messages."""
    return all(isinstance(found := data.get(key), str) or (found and isinstance(found, list))
               for key in keys)  # fmt: skip


def _of_completion(data: Row) -> Row:
    prompt, completion = data["prompt"], data["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        return {"prompt": prompt, "completion": completion}
    asked, answer = _turns(prompt, "user"), _turns(completion, "assistant")
    context = [m | {"weight": 0} if m["role"] == "assistant" else m for m in asked]
    return _talk(data, [*context, *answer])


def _text_key(data: Row, keys: Iterable[str]) -> str | None:
    return next((key for key in keys if isinstance(data.get(key), str)), None)


def _of_alpaca(data: Row, asked: str, answer: str) -> Row:
    about = _text_key(data, [key for key in _ABOUT if key != asked])
    given = [data[asked], data[about] if about else ""]
    prompt = "\n\n".join(text for text in given if isinstance(text, str) and text.strip())
    row = {"prompt": prompt, "completion": data[answer]}
    if not data.get("system") and not data.get("history"):
        return row
    try:
        pairs = [turn for pair in data.get("history") or () for turn in pair]
    except (TypeError, ValueError):
        raise BadInput("history: expected a list of pairs of texts") from None
    roles = ("user", "assistant")
    said = [*pairs, prompt, data[answer]]
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    return _talk(data, parse_messages(messages))


def _talk(data: Row, messages: list[Message]) -> Row:
    """A row of messages, after the row's `system` message and with its `tools`."""
    system, tools = data.get("system"), parse_tools(data.get("tools"))
    if system and messages[0]["role"] != "system":
        messages = [*parse_messages([{"role": "system", "content": system}]), *messages]
    return {"messages": messages} | ({"tools": tools} if tools else {})


def _turns(said: str | list[Any], role: str) -> list[Message]:
    return parse_messages([{"role": role, "content": said}] if isinstance(said, str) else said)
