"""The rules of an order, as people write them."""

import pytest

from db.errors import Refused
from worker.specs import parse_spec

ORDER = {"kind": "generate", "model": "digits", "count": 5, "seed": 1}


def rules(accept):
    return parse_spec(ORDER | {"accept": accept}).accept


def test_rules_are_read_from_text_or_data():
    text = rules("confidence>=0.8, near_duplicates=no,copies_of_training=no , length >= 5")
    assert text == rules(
        {
            "confidence": 0.8,
            "near_duplicates": False,
            "copies_of_training": False,
            "min_length": 5,
        }
    )
    assert text.looks
    assert not rules("length<=100").looks
    assert rules("agreement=yes").looks


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("", "is not a rule"),
        ("confidence>0.8", "'confidence>0.8' is not a rule"),
        ("confidence=0.8", "is not a rule"),
        ("quality>=3", "'quality>=3' is not a rule"),
        ("confidence>=1.5", "confidence: expected at most 1"),
        ("confidence>=high", "confidence: expected a number"),
        ("near_duplicates=maybe", "near_duplicates: expected true or false"),
        ("confidence>=0.5,confidence>=0.6", "given twice"),
        ("length=5", "is not a rule"),
        ({"colour": "blue"}, "colour"),
        (7, "accept"),
    ],
)
def test_a_wrong_rule_is_refused_by_name(wrong, says):
    with pytest.raises(Refused, match=says):
        rules(wrong)


def test_a_spec_without_rules_is_as_short_as_before():
    assert "accept" not in parse_spec(ORDER).model_dump(mode="json")
    kept = parse_spec(ORDER | {"accept": "confidence>=0.8"}).model_dump(mode="json")
    assert parse_spec(kept).accept.confidence == 0.8
