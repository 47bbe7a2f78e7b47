"""The gate decides by the data, by the policy, and by nothing else."""

import json
import re

import numpy as np
import pytest

from tests.evaluations import classes, images, policy, texts
from worker.gate.decide import decide
from worker.gate.items import Items

MEMORISED = {"memorisation": {"value": 0.4, "better": "lower"}}
HONEST = {"memorisation": {"value": 0.01, "better": "lower"}}


@pytest.mark.parametrize(
    ("metric", "worse", "better"),
    [
        ("fid", images(1, shift=0.5), images(2, shift=0.0)),
        ("loss", texts(1), texts(2, better_by=0.1)),
        ("perplexity", texts(1), texts(2, better_by=0.1)),
        ("label_agreement", classes(1, right=0.7), classes(2, right=0.9)),
    ],
)
def test_the_better_version_is_promoted_and_the_worse_one_refused(metric, worse, better):
    assert decide(better, worse, policy(metric)).promoted
    assert not decide(worse, better, policy(metric)).promoted


def test_an_equal_version_is_refused():
    same = texts(1)
    verdict = decide(same, same, policy("loss"))
    assert not verdict.promoted
    assert verdict.primary.improvement == verdict.primary.items_sd == 0


def test_the_improvement_must_exceed_the_margin_with_confidence():
    worse, better = texts(1), texts(2, better_by=0.1)
    assert decide(better, worse, policy("loss", margin=0.05)).promoted
    certain = decide(better, worse, policy("loss", margin=0.12))
    assert not certain.promoted
    assert "less than the margin of 0.12" in certain.text
    close = decide(better, worse, policy("loss", margin=0.098))
    assert not close.promoted
    assert "would be enough for the margin of 0.098" in close.text


def test_a_worse_version_is_called_worse():
    better, worse = texts(1), texts(2, better_by=-0.1)
    told = decide(worse, better, policy("loss", margin=0.05)).text
    by, low, high = map(float, re.findall(r"worse by (\S+) \(95%: (\S+) to (\S+)\)", told)[0])
    assert 0 < low < by < high
    assert told.endswith("where the policy wants it better by more than 0.05")


def test_noise_between_training_seeds_widens_the_interval():
    worse, better = texts(1), texts(2, better_by=0.1)
    known = decide(better, worse, policy("loss", training_sd=0.1))
    assert not known.promoted
    width = known.primary.high - known.primary.low
    assert width == pytest.approx(2 * 1.96 * np.hypot(known.primary.items_sd, 0.1 * 2**0.5), 1e-3)


def test_without_a_champion_it_is_promoted_and_that_is_said():
    verdict = decide(texts(1), None, policy("loss"))
    assert verdict.promoted
    assert verdict.text == "there is no champion to compare it with"


def test_what_was_never_evaluated_is_refused():
    for champion in (None, texts(1)):
        verdict = decide(None, champion, policy("loss"))
        assert not verdict.promoted
        assert verdict.text == "it has not been evaluated"


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (texts(2, count=200), "unequal sizes are never compared"),
        (texts(2, protocol="q"), "different protocols"),
        (Items({"nll": np.ones(300)}, {}, "p"), "no array 'tokens'"),
        (Items(texts(2).arrays | {"nll": np.full(300, np.nan)}, {}, "p"), "NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(candidate, reason):
    verdict = decide(candidate, texts(1), policy("loss"))
    assert not verdict.promoted
    assert reason in verdict.text


@pytest.mark.parametrize(
    ("guard", "kept"),
    [
        ({"metric": "memorisation", "at_most": 0.05}, False),
        ({"metric": "memorisation", "at_most": 0.5}, True),
        ({"metric": "memorisation", "at_least": 0.5}, False),
        ({"metric": "memorisation", "not_worse_by": 0.1}, False),
        ({"metric": "memorisation", "not_worse_by": 0.5}, True),
        ({"metric": "class_kl", "at_most": 1}, False),
        ({"metric": "class_kl", "at_most": 1, "optional": True}, True),
        ({"metric": "memorisation", "at_most": 1, "dataset": "old:1"}, False),
    ],
)
def test_a_guard_refuses_whatever_the_primary_metric_gains(guard, kept):
    better, worse = images(2, numbers=MEMORISED), images(1, shift=0.5, numbers=HONEST)
    verdict = decide(better, worse, policy("fid", guard=[guard]))
    assert verdict.promoted is kept
    assert [each.kept for each in verdict.guards] == [kept]
    assert (guard["metric"] in verdict.text) is not kept


def test_a_guard_holds_without_a_champion_if_it_needs_none():
    guards = [{"metric": "memorisation", "not_worse_by": 0.1}]
    assert decide(images(1, numbers=MEMORISED), None, policy("fid", guard=guards)).promoted
    guards = [{"metric": "memorisation", "at_most": 0.1}]
    assert not decide(images(1, numbers=MEMORISED), None, policy("fid", guard=guards)).promoted


@pytest.mark.parametrize(("better", "kept"), [("lower", False), ("higher", True), ("closer", True)])
def test_what_is_worse_depends_on_the_metric(better, kept):
    ours, theirs = (
        {"length": {"value": value, "better": better, "real": 60.0}} for value in (55.0, 50.0)
    )
    guard = {"metric": "length", "not_worse_by": 1}
    candidate, champion = images(2, numbers=ours), images(1, shift=0.5, numbers=theirs)
    assert decide(candidate, champion, policy("fid", guard=[guard])).promoted is kept


def test_a_guard_may_look_at_the_numbers_on_another_dataset():
    old = {"old:1": {"loss": {"value": 2.0, "better": "lower"}}}
    forgot = {"old:1": {"loss": {"value": 2.3, "better": "lower"}}}
    worse = Items(texts(1).arrays, {}, "p", old)
    better = Items(texts(2, better_by=0.1).arrays, {}, "p", forgot)
    guard = {"metric": "loss", "dataset": "old:1", "not_worse_by": 0.1}
    verdict = decide(better, worse, policy("loss", guard=[guard]))
    assert not verdict.promoted
    assert "loss on old:1 is 2.3 after 2" in verdict.text


@pytest.mark.parametrize("metric", ["fid", "loss"])
def test_equal_inputs_give_an_equal_verdict_byte_for_byte(metric):
    make = {"fid": images, "loss": texts}[metric]
    first, again = (
        json.dumps(decide(make(2), make(1), policy(metric)).data, sort_keys=True) for _ in range(2)
    )
    assert first == again
    other = decide(make(2), make(1), policy(metric).model_copy(update={"seed": 1}))
    assert json.dumps(other.data, sort_keys=True) != first
