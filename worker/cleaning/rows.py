"""The texts inside a row: of `text`, of `prompt` and `completion`, or of messages."""

from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]

_KEYS = ("text", "prompt", "completion")


def texts_of(row: Row) -> Iterator[str]:
    """The texts of a row in order."""
    yield from (row[key] for key in _KEYS if key in row)
    for message in row.get("messages", ()):
        if isinstance(message.get("content"), str):
            yield message["content"]


def learnt_texts_of(row: Row) -> Iterator[str]:
    """Those texts of a row that a model learns to write; the others are context."""
    key = "completion" if "completion" in row else "text"
    yield from (row[each] for each in [key] if each in row)
    for message in row.get("messages", ()):
        learnt = message["role"] == "assistant" and message.get("weight", 1)
        if learnt and isinstance(message.get("content"), str):
            yield message["content"]


def map_texts(row: Row, change: Callable[[str], str]) -> Row:
    """A copy of the row with each of its texts changed."""
    made = row | {key: change(row[key]) for key in _KEYS if key in row}
    if "messages" in row:
        made["messages"] = [
            message | {"content": change(message["content"])}
            if isinstance(message.get("content"), str)
            else message
            for message in row["messages"]
        ]
    return made
