"""Conversations as clients and datasets write them, in one form.

A message is plain data: `role`, one of system, user, assistant and tool; `content`, a text; and, if
there are any, `name`, `reasoning_content`, `weight`, `tool_calls` and `tool_call_id`, as in
OpenAI's API and the chat templates of `transformers`. What a text model cannot read, such as an
image, is refused by its name.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from db.errors import BadInput
from worker.complaints import as_given

Message = dict[str, Any]

MAX_MESSAGES = 1000
ROLES = {  # each role's names: OpenAI's, and those of ShareGPT and other datasets
    "system": "system, developer",
    "user": "user, human",
    "assistant": "assistant, gpt, chatgpt, model, bing, bard, function_call",
    "tool": "tool, function, observation, ipython",
}
_ROLE_OF = {name: role for role, names in ROLES.items() for name in names.split(", ")}
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_MEDIA = ("audio", "image", "images", "video", "videos")
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # in JSON


@dataclass(frozen=True)
class Conversation:
    """Messages for a model to answer, as one hashable value; `json` is their only form."""

    json: str

    @classmethod
    def parse(cls, data: object) -> Self:
        """The conversation of a list of messages. Raises `BadInput`."""
        try:
            # PostgreSQL does not keep the order of keys, and templates print a call's arguments
            messages = json.loads(json.dumps(parse_messages(data), sort_keys=True))
            messages = parse_messages(messages)  # their own keys in this module's order
            found = json.dumps(messages, ensure_ascii=False, separators=(",", ":"))
            found.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"messages are not JSON in Unicode: {error}") from None
        if _NUL.search(found):
            raise BadInput("a message holds a NUL character", remedy="remove the NUL characters")
        return cls(found)

    @property
    def messages(self) -> list[Message]:
        """The messages, as new plain data."""
        found: list[Message] = json.loads(self.json)
        return found

    @property
    def text(self) -> str:
        """The messages for people to read, each as `role: content` and a line break."""
        return "".join(f"{each['role']}: {each['content']}\n" for each in self.messages)

    @property
    def only_text(self) -> str | None:
        """The text of a lone user message, which any chat template shows as it shows a prompt."""
        messages = self.messages
        alone = len(messages) == 1 and messages[0].keys() == {"role", "content"}
        return messages[0]["content"] if alone and messages[0]["role"] == "user" else None

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Validated from a list of messages, and dumped as one."""

        def validate(value: object) -> Conversation:
            try:
                return value if isinstance(value, Conversation) else cls.parse(value)
            except BadInput as error:
                raise PydanticCustomError("messages", "{why}", {"why": str(error)}) from None

        dump = core_schema.plain_serializer_function_ser_schema(lambda value: value.messages)
        return core_schema.no_info_plain_validator_function(validate, serialization=dump)


def parse_messages(data: object) -> list[Message]:
    """A list of messages, of OpenAI's form or ShareGPT's, in the form of this module.

    Raises `BadInput`, naming the message that is wrong.
    """
    if not isinstance(data, list) or not data:
        raise BadInput('expected a list of messages, [{"role": "user", "content": "..."}]')
    if len(data) > MAX_MESSAGES:
        raise BadInput(f"{len(data):,} messages: at most {MAX_MESSAGES:,} are allowed")
    messages = []
    for number, each in enumerate(data, 1):
        try:
            messages.append(_parse_message(each))
        except BadInput as error:
            raise BadInput(f"message {number}: {error.message}", remedy=error.remedy) from None
    return messages


def parse_tools(data: object) -> list[Any]:
    """The tools that a conversation may call, given as a list or as the JSON of one."""
    tools = _parse_json(data) if isinstance(data, str) and data.strip() else data or []
    if not isinstance(tools, list) or not all(_tool_name(tool) for tool in tools):
        raise BadInput(
            f"tools: expected a list of functions with names (got {as_given(data)})",
            remedy='give [{"type": "function", "function": {"name": ..., "parameters": ...}}]',
        )
    return tools


def _tool_name(tool: Any) -> str:
    function = tool.get("function", tool) if isinstance(tool, dict) else {}
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def _parse_message(data: object) -> Message:
    if not isinstance(data, dict):
        raise BadInput(f'expected {{"role", "content"}} (got {as_given(data)})')
    given = data if "role" in data else {**data, "role": data.get("from")}
    content = given.get("content", given.get("value"))
    role = _parse_role(given["role"])
    if given["role"] == "function_call":  # of ShareGPT: the content is the call
        given, content = {**given, "function_call": _parse_json(content)}, None
    calls = _parse_calls(given)
    text = _parse_content(given if content is None else {**given, "content": content})
    if text is None and not calls:
        raise BadInput(f"a message of role {role!r} without content")
    if calls and role != "assistant":
        raise BadInput(f"a message of role {role!r} calls tools; only the assistant can")
    return (
        {"role": role, "content": text or ""}
        | _extras(given)
        | ({"tool_calls": calls} if calls else {})
    )


def _parse_role(name: object) -> str:
    if not isinstance(name, str) or name not in _ROLE_OF:
        raise BadInput(
            f"unknown role {str(name)[:40]!r}", remedy=f"allowed are {', '.join(_ROLE_OF)}"
        )
    return _ROLE_OF[name]


def _parse_content(message: Message) -> str | None:
    """The text of a message: its content, or that of its parts; None if there is none."""
    for medium in _MEDIA:
        if message.get(medium):
            raise BadInput(f"{medium} in a message: only text is taken")
    content = message.get("content")
    if content is None:
        content = message.get("refusal")
    if isinstance(content, list):
        return "\n".join(_part_text(part) for part in content) if content else None
    if content is not None and not isinstance(content, str):
        raise BadInput(f"content is neither a text nor a list of parts ({as_given(content)})")
    return content


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise BadInput(f"a content part is no object ({as_given(part)})")
    kind = str(part.get("type") or "text")
    if kind not in _TEXT_PARTS:
        raise BadInput(f"a content part of type {kind[:40]!r}: only text is taken")
    text = part.get(_TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise BadInput(f"a content part of type {kind!r} holds no text")
    return text


def _extras(message: Message) -> Message:
    """What else of a message a chat template may show or a training must know."""
    found: Message = {}
    for key in ("name", "tool_call_id", "reasoning_content"):
        if message.get(key) is not None:
            if not isinstance(message[key], str):
                raise BadInput(f"{key}: expected a text (got {as_given(message[key])})")
            found[key] = message[key]
    if (weight := message.get("weight")) is not None:
        if isinstance(weight, bool) or weight not in (0, 1):
            raise BadInput(f"weight: expected 0 or 1 (got {as_given(weight)})")
        found |= {} if weight else {"weight": 0}
    return found


def _parse_calls(message: Message) -> list[Message]:
    calls, old = message.get("tool_calls") or [], message.get("function_call")
    if not isinstance(calls, list):
        raise BadInput(f"tool_calls: expected a list (got {as_given(calls)})")
    return [_parse_call(call) for call in (*calls, *([old] if old else ()))]


def _parse_call(data: object) -> Message:
    call = data if isinstance(data, dict) else {}
    if (kind := call.get("type") or "function") != "function":
        raise BadInput(f"a tool call of type {str(kind)[:40]!r}: only functions are taken")
    name, function = _tool_name(call), call.get("function", call)
    if not name:
        raise BadInput(f"a tool call names no function ({as_given(data)})")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = _parse_json(arguments)
    if not isinstance(arguments, dict):
        raise BadInput(f"the arguments of the call of {name[:80]!r} are not a JSON object")
    number = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**number, "type": "function", "function": {"name": name, "arguments": arguments}}


def _parse_json(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None
