import json

import pytest

from db.errors import BadInput, NotFound
from scheduler.submission.prompts import find_template, read_prompts, templates

NAMES = ["advert", "article", "dialogue", "summary", "translation"]


@pytest.mark.parametrize("name", NAMES)
def test_each_template_s_example_fills_it(tmp_path, name):
    template = find_template(name)
    path = tmp_path / "example.jsonl"
    path.write_text(template.example, "utf-8")
    made = read_prompts(str(path), template)
    for prompt, line in zip(made, template.example.splitlines(), strict=True):
        values = json.loads(line)
        assert set(values) == {*template.fields, "custom_id"}
        assert all(
            str(value) in prompt["prompt"]
            for key, value in values.items()
            if key in template.fields
        )
        assert prompt["custom_id"] == values["custom_id"]


def test_all_templates_are_found():
    assert [each.name for each in templates()] == NAMES
    with pytest.raises(NotFound, match="did you mean 'summary'"):
        find_template("sumary")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "A"}', "line 2: no 'sentences'; template 'summary' needs sentences, text"),
        ('{"text": ["A"], "sentences": 1}', "line 2: text: expected a text"),
        (
            '{"text": "A", "sentences": 1, "tone": "dry"}',
            "line 2: template 'summary' has no field 'tone'",
        ),
        ('["A"]', "line 2: expected a JSON object"),
        ("{", "line 2: "),
    ],
)
def test_a_line_that_does_not_fill_the_template_is_named(tmp_path, line, says):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "A", "sentences": 2}\n' + line + "\n", "utf-8")
    with pytest.raises(BadInput) as wrong:
        read_prompts(str(path), find_template("summary"))
    assert says in str(wrong.value)


HI = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "line",
    [
        {"messages": HI},
        {"prompt": HI},
        HI,
        {"conversations": [{"from": "human", "value": "Hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    ],
)
def test_a_prompt_may_be_a_conversation(tmp_path, line):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(line) + "\n", "utf-8")
    [prompt] = read_prompts(str(path))
    assert prompt["prompt"].messages == HI


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"messages": [{"role": "narrator", "content": "x"}]}, "line 1: message 1: unknown role"),
        ({"messages": HI, "prompt": "Hi"}, "no key 'messages'"),
        ({"messages": HI, "tools": []}, "no key 'tools'"),
        ({"messages": "Hi"}, "line 1: expected a list of messages"),
        ([], "list of messages"),
        (5, "line 1: expected"),
    ],
)
def test_a_wrong_conversation_is_named(tmp_path, line, says):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(line) + "\n", "utf-8")
    with pytest.raises(BadInput, match=says):
        read_prompts(str(path))


def test_braces_in_a_text_are_left_alone():
    prompt = find_template("summary").fill({"text": "a {b} {}", "sentences": 1})
    assert "a {b} {}" in prompt
