"""Conversations as people have them, in one form; what is no text is refused by its name."""

import pytest

from db.errors import BadInput, Refused
from worker.conversations import Conversation, parse_messages, parse_tools
from worker.specs import Prompt, parse_spec

USER = {"role": "user", "content": "Hi"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"role": "developer", "content": "Be kind."}, said("system", "Be kind.")),
        ({"from": "human", "value": "Hi"}, USER),
        ({"from": "gpt", "value": "Ho", "weight": None}, said("assistant", "Ho")),
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, USER),
        ({"role": "user", "content": ["a", {"type": "input_text", "text": "b"}]},
         said("user", "a\nb")),
        ({"role": "user", "content": [{"type": "text", "text": "Hi", "image_url": None}]}, USER),
        ({"role": "assistant", "content": None, "refusal": "No."}, said("assistant", "No.")),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
         said("assistant", "No.")),
        ({"role": "assistant", "content": None,
          "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]},
         said("assistant", "", tool_calls=[CALL])),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": '{"x": 1}'}},
         said("assistant", "", tool_calls=[CALL])),
        ({"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
         said("assistant", "", tool_calls=[CALL])),
        ({"from": "observation", "value": "42"}, said("tool", "42")),
        ({"role": "function", "name": "f", "content": "42"}, said("tool", "42", name="f")),
        ({"role": "assistant", "content": "Ho", "weight": 0, "audio": None, "annotations": []},
         said("assistant", "Ho", weight=0)),
    ],
)  # fmt: skip
def test_a_message_has_one_form_however_it_was_written(given, expected) -> None:
    assert parse_messages([given]) == [expected]
    assert parse_messages([expected]) == [expected]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (said("narrator", "Once"), r"message 1: unknown role 'narrator'; allowed are system"),
        (said("user", [{"type": "image_url", "image_url": {"url": "x"}}]), "type 'image_url'"),
        (said("user", [{"type": "input_audio", "input_audio": {}}]), "type 'input_audio'"),
        (said("user", [{"type": "text"}]), "holds no text"),
        (said("user", [{"type": ["text"]}]), "only text is taken"),
        (said("user", None), "role 'user' without content"),
        (said("user", []), "role 'user' without content"),
        (said("user", {"text": "Hi"}), "neither a text nor a list"),
        (said("user", "Hi", images=["a.png"]), "images in a message"),
        (said("assistant", None, audio={"id": "a"}), "audio in a message"),
        (said("user", "Hi", tool_calls=[CALL]), "only the assistant"),
        (said("assistant", "", tool_calls=[{"type": "custom", "custom": {}}]), "type 'custom'"),
        (said("assistant", "", tool_calls=[{"function": {"name": "f", "arguments": "{"}}]),
         "arguments of the call of 'f'"),
        (said("assistant", "", tool_calls=[{"id": "1"}]), "names no function"),
        (said("assistant", "Ho", weight=0.5), "weight: expected 0 or 1"),
        ("Hi", "expected .*role"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_by_its_name(given, says) -> None:
    with pytest.raises(BadInput, match=says):
        parse_messages([given])


def test_tools_are_functions_with_names() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert parse_tools([tool]) == parse_tools('[{"type": "function", "function": {"name": "f"}}]')
    assert parse_tools(None) == parse_tools("") == []
    for wrong in ([{}], "f", "{", [1], {"name": "f"}, "[" * 100_000):
        with pytest.raises(BadInput, match="tools"):
            parse_tools(wrong)


def test_equal_conversations_are_equal_values() -> None:
    one = {**USER, "name": None}
    calls = [said("assistant", None, tool_calls=[{"function": {"name": "f", "arguments": a}}])
             for a in ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}')]  # fmt: skip
    assert Conversation.parse([one, calls[0]]) == Conversation.parse([USER, calls[1]])
    assert len({Conversation.parse([USER]), Conversation.parse([one])}) == 1
    assert Conversation.parse([USER]).only_text == "Hi"
    assert Conversation.parse([said("system", "Hi")]).only_text is None
    assert Conversation.parse([USER, USER]).only_text is None


def test_a_prompt_is_a_text_or_messages() -> None:
    prompt = Prompt.model_validate({"prompt": [{"from": "human", "value": "Hi"}]})
    assert prompt.model_dump(mode="json") == {"prompt": [USER], "custom_id": None}
    assert Prompt.model_validate(prompt.model_dump(mode="json")) == prompt
    assert Prompt(prompt="Hi").model_dump(mode="json") == {"prompt": "Hi", "custom_id": None}


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([], "list of messages"),
        ([said("user", "a\0")], "NUL"),
        ([said("user", "\ud800")], "Unicode"),
        ([said("user", "x" * 20_001)], "at most 20,000"),
        ([said("narrator", "x")], "unknown role 'narrator'"),
        (5, "prompts #1.prompt"),
    ],
)
def test_a_wrong_prompt_is_refused_by_name(prompt, says) -> None:
    spec = {"kind": "generate", "model": "m", "count": 1, "prompts": [{"prompt": prompt}]}
    with pytest.raises(Refused, match=says):
        parse_spec(spec)


def test_a_backslash_before_u0000_is_no_nul() -> None:
    assert Conversation.parse([said("user", "\\u0000")]).messages == [said("user", "\\u0000")]
