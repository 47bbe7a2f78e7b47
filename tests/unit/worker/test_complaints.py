"""Complaints about values are for whoever wrote them, and speak no Python."""

import re
from datetime import date
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from db.errors import Refused
from worker.complaints import as_given, explain
from worker.families import families
from worker.gate.policy import Guard, Noise, Policy, PrimaryRule
from worker.marks import MARKS, find_mark
from worker.publishing import KINDS, find_kind
from worker.specs import Prompt, Spec, parse_spec

WRONG = (None, True, -1, 2**70, 0.5, float("inf"), "", "?", "\0", "x" * 9_999, [], ["?"] * 60)
ODD = (*WRONG, [None], {}, {"?": 1}, date(2020, 1, 2), b"\xff")
PYTHON = re.compile(
    r"\bvalid\b|[Ii]nput|None|True|False|instance|dict|tuple|parse|string|boolean|integer|float|pattern"
)


def schemas() -> list[type[BaseModel]]:
    trained = [each for family in families().values() for each in (family.params, family.sampling)]
    marks = [find_mark(name).schema for name in MARKS]
    targets = [find_kind(name).schema for name in KINDS]
    rules = [Policy, PrimaryRule, Guard, Noise, Prompt]
    return [*dict.fromkeys([*get_args(Spec), *rules, *trained, *marks, *targets])]


@pytest.mark.parametrize("schema", schemas(), ids=lambda each: each.__name__)
def test_no_wrong_value_of_any_field_is_told_in_python(schema):
    for name in schema.model_fields:
        for value in ODD:
            try:
                schema.model_validate({name: value, "?": value})
            except ValidationError as error:
                for part in explain(error, schema).split(", and "):
                    about = part.partition(" (got ")[0].partition("; known:")[0]
                    assert not PYTHON.search(about.replace(name, "")), part


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "spec: a kind is needed: train, finetune, generate, evaluate, promote or publish"),
        ({"kind": "gen"}, "promote or publish (got 'gen')"),
        ({"kind": "generate", "model": "a", "cuont": 1}, "count: needed, but not given"),
        (
            {"kind": "generate", "model": "a", "cuont": 1},
            "has no key 'cuont' (did you mean",
        ),
        (
            {"kind": "generate", "prompts": ["a", {"prompt": 3}]},
            "prompts #2.prompt: expected",
        ),
        (
            {"kind": "generate", "accept": {"trys": 3}},
            "accept has no key 'trys' (did you",
        ),
        (
            {"kind": "promote", "policy": {"a": {"b": [date(2020, 1, 2)]}}},
            "policy.a.b #1: exp",
        ),
    ],
)
def test_a_complaint_names_the_field_and_what_is_allowed(given, complaint):
    with pytest.raises(Refused) as error:
        parse_spec(given)
    assert complaint in str(error.value)


def test_a_value_is_shown_as_it_was_written():
    given = ["it's", None, True, 3, 0.5, float("nan"), {"a": [None]}, date(2020, 1, 2), "x" * 99]
    shown = ['"it\'s"', "null", "true", "3", "0.5", "nan", '{"a": [null]}', "2020-01-02"]
    assert [as_given(each) for each in given] == [*shown, f"'{'x' * 80}'"]
    assert as_given(["\x1b"]).isprintable()
