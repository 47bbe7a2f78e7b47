"""The gate decides by the data, by the policy, and by nothing else."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from tests.evaluations import classes, images, number, policy, texts
from worker.gate.decide import decide

MEMORISED = {"memorisation": number("memorisation", 0.4)}
HONEST = {"memorisation": number("memorisation", 0.01)}


def without(items, name):
    arrays = {each: array for each, array in items.arrays.items() if each != name}
    return replace(items, arrays=arrays)


@pytest.mark.parametrize(
    ("metric", "worse", "better"),
    [
        ("kid", images(1, shift=0.5), images(2, shift=0.0)),
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
    assert "not more than the margin of 0.12" in certain.text
    close = decide(better, worse, policy("loss", margin=0.095))
    assert not close.promoted
    assert "not certain to be more than the margin of 0.095" in close.text


def test_a_worse_version_is_called_worse():
    better, worse = texts(1), texts(2, better_by=-0.1)
    told = decide(worse, better, policy("loss", margin=0.05)).text
    by, low, high = map(float, re.findall(r"worse by (\S+) \(95%: (\S+) to (\S+)\)", told)[0])
    assert 0 < low < by < high
    assert told.endswith(")")


def test_noise_between_training_seeds_widens_the_interval():
    worse, better = texts(1), texts(2, better_by=0.1)
    known = decide(better, worse, policy("loss", training_sd=0.1))
    assert not known.promoted
    width = known.primary.high - known.primary.low
    reach = t.ppf(0.975, 299) * np.hypot(known.primary.items_sd, 0.1 * 2**0.5)
    assert width == pytest.approx(2 * reach, 1e-9)


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
        (texts(2, protocol="q"), "different protocols"),
        (texts(2, tokenizer=2), "different tokenizers"),
        (without(texts(2), "tokens"), "no array 'tokens'"),
        (replace(texts(2), arrays=texts(2).arrays | {"nll": np.full(300, np.nan)}), "NaN"),
        (replace(texts(2), numbers={}), "loss was not measured"),
        (texts(2, count=4), "of 4 items is never certain"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(candidate, reason):
    champion = texts(1, count=4) if len(candidate.arrays["nll"]) == 4 else texts(1)
    verdict = decide(candidate, champion, policy("loss"))
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
    verdict = decide(better, worse, policy("kid", guard=[guard]))
    assert verdict.promoted is kept
    assert [each.kept for each in verdict.guards] == [kept]
    assert (guard["metric"] in verdict.text) is not kept


def test_a_guard_holds_without_a_champion_if_it_needs_none():
    guards = [{"metric": "memorisation", "not_worse_by": 0.1}]
    assert decide(images(1, numbers=MEMORISED), None, policy("kid", guard=guards)).promoted
    guards = [{"metric": "memorisation", "at_most": 0.1}]
    assert not decide(images(1, numbers=MEMORISED), None, policy("kid", guard=guards)).promoted


@pytest.mark.parametrize(
    ("metric", "reals", "kept"),
    [
        ("emd", (None, None), False),
        ("inception_score", (None, None), True),
        ("perceptual_diversity", (60.0, 60.0), True),
        ("perceptual_diversity", (60.0, 51.0), False),  # each is held against its own real data
        ("perceptual_diversity", (None, None), False),
    ],
)
def test_what_is_worse_depends_on_the_metric(metric, reals, kept):
    ours, theirs = (
        {metric: number(metric, value, real=real)}
        for value, real in zip((55.0, 50.0), reals, strict=True)
    )
    guard = {"metric": metric, "not_worse_by": 1}
    candidate, champion = images(2, numbers=ours), images(1, shift=0.5, numbers=theirs)
    verdict = decide(candidate, champion, policy("kid", guard=[guard]))
    assert verdict.promoted is kept, verdict.text


def test_a_guard_may_look_at_the_numbers_on_another_dataset():
    old, forgot = ({"old:1": {"loss": number("loss", value)}} for value in (2.0, 2.3))
    worse = replace(texts(1), elsewhere=old)
    better = replace(texts(2, better_by=0.1), elsewhere=forgot)
    guard = {"metric": "loss", "dataset": "old:1", "not_worse_by": 0.1}
    verdict = decide(better, worse, policy("loss", guard=[guard]))
    assert not verdict.promoted
    assert "loss on old:1 is 2.3 after 2" in verdict.text


@pytest.mark.parametrize("metric", ["kid", "loss"])
def test_equal_inputs_give_an_equal_verdict_byte_for_byte(metric):
    make = {"kid": images, "loss": texts}[metric]
    first, again = (
        json.dumps(decide(make(2), make(1), policy(metric)).data, sort_keys=True) for _ in range(2)
    )
    assert first == again
    other = decide(make(2), make(1), policy(metric).model_copy(update={"seed": 1}))
    assert json.dumps(other.data, sort_keys=True) != first
