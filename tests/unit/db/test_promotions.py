"""Aliases move by compare-and-swap, and every move is in the history."""

import pytest

from db import models, promotions
from db.errors import GenmillError, Refused
from db.promotions import Moved, Reason

ANN = Reason("ann@mill", "it is better", {"promoted": True})


@pytest.fixture
def versions(record):
    return [_add(record) for _ in range(3)]


def _add(record, name="digits"):
    rest = {"params": {}, "files": {}, "weights_sha256": "a" * 64, "metrics": {}}
    return record.run(models.add_version, name=name, family="gan", **rest)


def model_of(record):
    return record.run(models.get, "digits")


def move(record, version, expected, outcome="promoted"):
    return record.run(
        promotions.move,
        model_of(record),
        "champion",
        version,
        expected=expected,
        outcome=outcome,
        reason=ANN,
    )


def champion(record):
    found = record.run(promotions.holder, model_of(record), "champion")
    return found.number if found else None


def roll_back(record):
    target = record.run(promotions.previous_holder, model_of(record), "champion")
    now = record.run(promotions.holder, model_of(record), "champion")
    move(record, target, now.id if now else None, "rolled back")


def test_a_move_is_in_the_history_with_who_why_and_the_verdict(record, versions):
    first, second, _ = versions
    move(record, first, None)
    move(record, second, first.id)
    assert champion(record) == 2
    entry = record.run(promotions.history, model_of(record))[-1]
    assert (entry.version_id, entry.previous_id) == (second.id, first.id)
    assert (entry.who, entry.why, entry.verdict) == ("ann@mill", "it is better", ANN.verdict)
    assert record.run(models.resolve, "digits")[1].number == 2


def test_a_move_that_expects_another_holder_changes_nothing(record, versions):
    first, second, third = versions
    move(record, first, None)
    for expected in (None, third.id):
        with pytest.raises(Moved, match="version 1 has it"):
            move(record, second, expected)
    assert champion(record) == 1
    assert len(record.run(promotions.history, model_of(record))) == 1


def test_of_two_promotions_at_once_one_happens(each_record):
    first, second, third, fourth = (_add(each_record) for _ in range(4))
    move(each_record, first, None)
    for old, ours, theirs in ((first, second, third), (None, first, fourth)):
        expected = (
            old.id
            if old
            else each_record.run(promotions.holder, model_of(each_record), "champion").id
        )
        outcomes = each_record.together(
            *((move, each_record, version, expected) for version in (ours, theirs))
        )
        assert sorted(isinstance(each, Moved) for each in outcomes) == [False, True]
    assert len(each_record.run(promotions.history, model_of(each_record))) == 3


def test_rolling_back_goes_one_step_back_each_time(record, versions):
    first, second, third = versions
    for version, old in ((first, None), (second, first), (third, second)):
        move(record, version, old.id if old else None)
    roll_back(record)
    assert champion(record) == 2
    roll_back(record)
    assert champion(record) == 1
    with pytest.raises(Refused, match="no version of model 'digits' had the alias"):
        roll_back(record)
    move(record, third, first.id)
    roll_back(record)
    assert champion(record) == 1


def test_a_refusal_is_noted_and_is_no_step_to_go_back_to(record, versions):
    first, second, third = versions
    move(record, first, None)
    move(record, second, first.id)
    record.run(promotions.refuse, model_of(record), "champion", third, ANN)
    assert champion(record) == 2
    refused = record.run(promotions.history, model_of(record))[-1]
    assert (refused.outcome, refused.version_id, refused.previous_id) == (
        "refused",
        third.id,
        second.id,
    )
    roll_back(record)
    assert champion(record) == 1


def test_a_removed_alias_can_be_brought_back(record, versions):
    first, *_ = versions
    move(record, first, None)
    move(record, None, first.id, "removed")
    assert champion(record) is None
    roll_back(record)
    assert champion(record) == 1


def test_a_time_without_the_alias_is_no_step_to_go_back_to(record, versions):
    first, second, third = versions
    move(record, first, None)
    move(record, None, first.id, "removed")
    move(record, second, None, "set")
    move(record, third, second.id)
    for expected in (2, 1):
        roll_back(record)
        assert champion(record) == expected
    with pytest.raises(Refused, match="no version of model 'digits' had the alias"):
        roll_back(record)


def test_what_cannot_be_an_alias_is_refused_and_not_in_the_history(record, versions):
    with pytest.raises(GenmillError, match="cannot be an alias"):
        record.run(
            promotions.move,
            model_of(record),
            "latest",
            versions[0],
            expected=None,
            outcome="set",
            reason=ANN,
        )
    assert record.run(promotions.history, model_of(record)) == []


def test_each_alias_has_a_history_of_its_own(record, versions):
    first, second, _ = versions
    move(record, first, None)
    record.run(
        promotions.move,
        model_of(record),
        "tested",
        second,
        expected=None,
        outcome="set",
        reason=ANN,
    )
    assert [e.alias for e in record.run(promotions.history, model_of(record), "tested")] == [
        "tested"
    ]
    with pytest.raises(Refused):
        record.run(promotions.previous_holder, model_of(record), "champion")
