"""The decision: is the candidate better than the champion, by this policy?"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from db.errors import GenmillError
from worker.gate.differences import difference
from worker.gate.items import Items, Numbers
from worker.gate.policy import Guard, Policy
from worker.gate.primaries import find_primary
from worker.gate.verdict import (
    GuardResult,
    PrimaryResult,
    Verdict,
    refusal,
    tell_guard,
    tell_primary,
)


def decide(candidate: Items | None, champion: Items | None, policy: Policy) -> Verdict:
    """Whether the candidate is promoted; depends on the arguments alone.

    A candidate of None was not evaluated: refused. A champion of None means that there is none:
    promoted, unless a guard of its own numbers is broken.
    """
    if candidate is None:
        return refusal(policy, "it has not been evaluated")
    guards = tuple(_check(guard, candidate, champion) for guard in policy.guard)
    broken = [
        tell_guard(guard, result)
        for guard, result in zip(policy.guard, guards, strict=True)
        if not result.kept
    ]
    if champion is None:
        if broken:
            return Verdict(False, tuple(broken), policy, guards=guards)
        return Verdict(True, ("there is no champion to compare it with",), policy, guards=guards)
    try:
        primary = _compare(candidate, champion, policy)
    except GenmillError as error:
        return Verdict(False, (str(error), *broken), policy, guards=guards)
    rule = policy.primary
    reasons = (tell_primary(primary, rule.margin, rule.confidence), *broken)
    better = primary.low > rule.margin
    return Verdict(better and not broken, reasons, policy, primary, guards)


def _compare(candidate: Items, champion: Items, policy: Policy) -> PrimaryResult:
    rule, noise = policy.primary, policy.noise.training_sd
    primary = find_primary(rule.metric)
    found = difference(primary, candidate, champion, resamples=policy.resamples, seed=policy.seed)
    low, high = found.bounds(rule.confidence, training_sd=noise or 0.0)
    if not (isfinite(low) and isfinite(high)):
        raise GenmillError(f"{rule.metric} is not finite")
    return PrimaryResult(
        metric=rule.metric,
        better="lower" if primary.lower else "higher",
        candidate=found.candidate,
        champion=found.champion,
        improvement=found.improvement,
        low=low,
        high=high,
        needed=rule.margin + found.improvement - low,
        items_sd=found.sd,
        training_sd=noise,
    )


def _check(guard: Guard, candidate: Items, champion: Items | None) -> GuardResult:
    ours = _number(candidate, guard)
    theirs = _number(champion, guard) if champion else None
    return GuardResult(
        guard.metric,
        guard.dataset,
        guard.rule,
        guard.limit,
        ours,
        theirs,
        kept=_is_kept(guard, candidate, champion, ours, theirs),
    )


def _is_kept(
    guard: Guard, candidate: Items, champion: Items | None, ours: float | None, theirs: float | None
) -> bool:
    if ours is None:
        return guard.optional
    if guard.rule == "at_most":
        return ours <= guard.limit
    if guard.rule == "at_least":
        return ours >= guard.limit
    if champion is None or theirs is None:
        return champion is None or guard.optional
    number = _numbers(candidate, guard)[guard.metric]
    if number["better"] == "closer" and number["real"] is None:
        return guard.optional
    return _badness(number, ours) - _badness(number, theirs) <= guard.limit


def _badness(number: Mapping[str, Any], value: float) -> float:
    """How bad a value is, in the metric's own unit."""
    if number["better"] == "closer":
        return abs(value - float(number["real"]))
    return value if number["better"] == "lower" else -value


def _number(items: Items, guard: Guard) -> float | None:
    found = _numbers(items, guard).get(guard.metric)
    return None if found is None else float(found["value"])


def _numbers(items: Items, guard: Guard) -> Numbers:
    return items.elsewhere.get(guard.dataset, {}) if guard.dataset else items.numbers
