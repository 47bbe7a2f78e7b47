"""Rows of text that people have, as the three forms of rows of a dataset: see `LocalDataset`."""

import re
from typing import Any

from db.errors import BadInput

Row = dict[str, Any]

_ROLES = {"system", "user", "assistant", "tool"}
_SHAREGPT_ROLES = {  # as ShareGPT's files call them
    "user": re.compile("human|user"),
    "assistant": re.compile("gpt|chatgpt|assistant|model|bing|bard"),
    "tool": re.compile("tool|observation"),
}


def known_row(data: Row) -> Row:
    """The row in one of the three forms; `BadInput` if it has none of the known keys.

    Rows of Alpaca (`instruction`, `input`, `output`) become prompts with completions, those of
    ShareGPT (`conversations` of `from` and `value`) become messages.
    """
    if isinstance(data.get("text"), str) and data["text"]:
        return {"text": data["text"]}
    if isinstance(data.get("prompt"), str) and isinstance(data.get("completion"), str):
        return {"prompt": data["prompt"], "completion": data["completion"]}
    if isinstance(data.get("messages"), list) and data["messages"]:
        return {"messages": [_message(each) for each in data["messages"]]}
    if isinstance(data.get("instruction"), str) and isinstance(data.get("output"), str):
        given = [data["instruction"], data.get("input")]
        prompt = "\n\n".join(text for text in given if isinstance(text, str) and text.strip())
        return {"prompt": prompt, "completion": data["output"]}
    if isinstance(data.get("conversations"), list) and data["conversations"]:
        return {"messages": [_message(_of_sharegpt(each)) for each in data["conversations"]]}
    raise BadInput(
        'holds none of "text", "prompt" with "completion", and "messages"',
        remedy="give one of them, not empty",
    )


def _of_sharegpt(data: Any) -> Any:
    if not isinstance(data, dict) or "from" not in data:
        return data
    said = str(data["from"])
    role = next((role for role, names in _SHAREGPT_ROLES.items() if names.fullmatch(said)), said)
    return {"role": role, "content": data.get("value")}


def _message(data: Any) -> dict[str, str]:
    role, content = (data.get("role"), data.get("content")) if isinstance(data, dict) else ("", "")
    if not isinstance(role, str) or role not in _ROLES or not isinstance(content, str):
        raise BadInput(
            f"a message has the role {str(role)[:40]!r} or no content",
            remedy=f'give "role", one of {", ".join(sorted(_ROLES))}, and "content", a text',
        )
    return {"role": role, "content": content}
