"""Every sentence of the gate is true of its numbers, short and plain, over a grid of outcomes."""

import itertools
import re

import pytest

from worker.gate.telling import tell_guard, tell_primary
from worker.gate.verdict import GuardResult, PrimaryResult
from worker.metrics.catalogue import CLOSER, HIGHER, LOWER

NUMBER = r"-?\d[\d.]*(?:e-?\d+)?"
CHANGES = (-45.4, -0.5, -0.1000004, -1e-9, 0.0, 1e-9, 0.0999996, 0.1, 0.1000004, 0.5, 3.0)
REACHES = (0.0, 1e-9, 0.05, 0.1, 0.5, 2.0)
MARGINS = (0.0, 0.1, 0.5, 1000.0)
OUTCOMES = list(itertools.product((LOWER, HIGHER, CLOSER), CHANGES, REACHES, MARGINS))


def outcome(better, change, reach, margin):
    champion = 60.0
    candidate = champion - change if better == LOWER else champion + change
    low, high = change - reach, change + reach
    return PrimaryResult(
        metric="number",
        better=better,
        candidate=candidate,
        champion=champion,
        improvement=change,
        low=low,
        high=high,
        needed=margin + reach,
        items_sd=reach / 2,
        training_sd=None,
        real=70.0 if better == CLOSER else None,
    )


def shown(pattern, told):
    return [float(each) for each in re.search(pattern, told).groups()]


@pytest.mark.parametrize("better", [LOWER, HIGHER, CLOSER])
def test_every_sentence_is_true_short_and_plain(better):
    for each in OUTCOMES:
        if each[0] != better:
            continue
        _, change, _, margin = each
        result = outcome(*each)
        told = tell_primary(result, margin, 0.95)
        assert len(told) < 240, told
        assert not re.search(r"(\b(by|of) |-)0(?![.\de])|nan|inf|None", told), told
        assert ("better by" in told) == (change > 0), told
        assert ("worse by" in told) == (change < 0), told
        if change == 0:
            assert f"is {result.candidate:g}, no better than before" in told
        else:
            by, low, high = shown(rf"by ({NUMBER}) \(95%: ({NUMBER}) to ({NUMBER})\)", told)
            assert low <= by <= high, told
            champion, candidate = shown(rf"from ({NUMBER}) to ({NUMBER})[,:]", told)
            assert (champion == candidate) == (result.champion == result.candidate), told
            assert (low > 0) == (abs(change) > each[2]), told
        promoted = result.low > margin
        assert ("more than the margin" in told) <= (margin > 0), told
        if promoted:
            assert not re.search("not|certain|worse|no better", told), told
            assert ("more than the margin" in told) == (margin > 0)
        else:
            assert re.search("not|worse|no better", told), told
            assert ("not certain" in told) == (change > margin), told
            assert ("not more than" in told) == (0 < change <= margin), told


def test_an_improvement_of_what_would_be_certain_is_promoted():
    for each in OUTCOMES:
        *_, margin = each
        result = outcome(*each)
        if "it takes more than" not in tell_primary(result, margin, 0.95):
            continue
        (needed,) = shown(rf"it takes more than ({NUMBER})$", tell_primary(result, margin, 0.95))
        assert needed == pytest.approx(margin + each[2], rel=1e-3)
        enough = outcome(each[0], needed * 1.001, each[2], margin)
        assert enough.low > margin


def test_what_is_not_the_margin_is_not_printed_as_it():
    close = tell_primary(outcome(HIGHER, 0.1000004, 0.0, 0.1), 0.1, 0.95)
    assert close == (
        "number went from 60 to 60.1: better by 0.1000004 (95%: 0.1000004 to 0.1000004), "
        "more than the margin of 0.1"
    )


def test_what_should_be_near_to_real_data_is_told_with_their_value():
    told = tell_primary(outcome(CLOSER, 3.0, 0.5, 0.0), 0.0, 0.9)
    assert told == (
        "number went from 60 to 63, where real data have 70: better by 3 (90%: 2.5 to 3.5)"
    )


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (("at_most", 0.05, 0.0500004, None, None), "is 0.0500004: the policy wants at most 0.05"),
        (("at_least", 0.5, 0.4, 0.7, None), "is 0.4: the policy wants at least 0.5"),
        (("at_least", 0.5, None, 0.7, None), "was not measured, and the policy guards it"),
        (
            ("not_worse_by", 0.02, 0.4, 0.01, 0.39),
            "is 0.4 after 0.01: worse by 0.39, and the policy allows 0.02",
        ),
        (
            ("not_worse_by", 0.02, 0.4, None, None),
            "of the champion was not measured, and the policy guards it",
        ),
        (
            ("not_worse_by", 0.02, 0.4, 0.3, None),
            "has no value of real data to be near to, and the policy guards it",
        ),
        (
            ("not_worse_by", 0.0, 0.4, 0.3, 0.1),
            "is 0.4 after 0.3: worse by 0.1, and the policy allows 0",
        ),
    ],
)
def test_a_broken_guard_is_told_with_what_it_was_held_against(limits, told):
    rule, limit, candidate, champion, worse_by = limits
    for dataset, name in ((None, "number"), ("old:1", "number on old:1")):
        result = GuardResult("number", dataset, rule, limit, candidate, champion, worse_by, False)
        assert tell_guard(result) == f"{name} {told}"
