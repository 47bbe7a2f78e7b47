"""The decision: is the candidate better than the champion, by this policy?"""

from math import isfinite

from db.errors import GenmillError
from worker.gate.differences import difference
from worker.gate.items import Items, Number
from worker.gate.policy import Guard, Policy
from worker.gate.telling import tell_guard, tell_primary
from worker.gate.verdict import GuardResult, PrimaryResult, Verdict, refusal
from worker.metrics.catalogue import METRICS, badness


def decide(candidate: Items | None, champion: Items | None, policy: Policy) -> Verdict:
    """Whether the candidate is promoted; depends on the arguments alone.

    A candidate of None was not evaluated: refused. A champion of None means that there is none:
    promoted, unless a guard of its own numbers is broken.
    """
    if candidate is None:
        return refusal(policy, "it has not been evaluated")
    guards = tuple(_check(guard, candidate, champion) for guard in policy.guard)
    broken = [tell_guard(result) for result in guards if not result.kept]
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
    found = difference(
        rule.metric, candidate, champion, resamples=policy.resamples, seed=policy.seed
    )
    low, high = found.bounds(rule.confidence, training_sd=noise or 0.0)
    return PrimaryResult(
        metric=rule.metric,
        better=METRICS[rule.metric].better,
        candidate=found.candidate,
        champion=found.champion,
        improvement=found.improvement,
        low=low,
        high=high,
        needed=rule.margin + found.improvement - low,
        items_sd=found.sd,
        training_sd=noise,
        real=candidate.numbers[rule.metric].get("real"),
    )


def _check(guard: Guard, candidate: Items, champion: Items | None) -> GuardResult:
    ours = _number(candidate, guard)
    theirs = _number(champion, guard) if champion else None
    worse_by = _worse_by(guard.metric, ours, theirs) if ours and theirs else None
    value = float(ours["value"]) if ours else None
    return GuardResult(
        guard.metric,
        guard.dataset,
        guard.rule,
        guard.limit,
        value,
        float(theirs["value"]) if theirs else None,
        worse_by,
        kept=_is_kept(guard, value, worse_by, alone=champion is None),
    )


def _is_kept(guard: Guard, value: float | None, worse_by: float | None, *, alone: bool) -> bool:
    """Whether a guard is kept; `alone` if there is no champion."""
    if value is None:
        return guard.optional
    if guard.rule == "at_most":
        return value <= guard.limit
    if guard.rule == "at_least":
        return value >= guard.limit
    return alone or (guard.optional if worse_by is None else worse_by <= guard.limit)


def _worse_by(metric: str, ours: Number, theirs: Number) -> float | None:
    """How much worse a number is, in its own unit; None if it has nothing to be near to."""
    one, other = (
        badness(metric, float(each["value"]), each.get("real")) for each in (ours, theirs)
    )
    return one - other if isfinite(one - other) else None


def _number(items: Items, guard: Guard) -> Number | None:
    found = items.elsewhere.get(guard.dataset, {}) if guard.dataset else items.numbers
    return found.get(guard.metric)
