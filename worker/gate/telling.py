"""The gate's reasons in words: each is true of its numbers, as they are printed."""

from collections.abc import Iterable
from itertools import pairwise

from worker.gate.verdict import GuardResult, PrimaryResult
from worker.metrics.catalogue import CLOSER

FEWEST_DIGITS, MOST_DIGITS = 4, 15


def tell_primary(result: PrimaryResult, margin: float, confidence: float) -> str:
    """How the primary metric changed, whether that is certain, and what would be."""
    by, low, high = result.improvement, result.low, result.high
    show = _Shown((result.champion, result.candidate), (by, low, high, result.needed, margin, 0))
    sure = f"{100 * confidence:g}%"
    if by == 0:
        spread = f" ({sure}: {show(low)} to {show(high)})" if low < high else ""
        return f"{result.metric} is {show(result.candidate)}, no better than before{spread}"
    word = "better"
    if by < 0:
        word, by, low, high = "worse", -by, -high, -low
    told = (
        f"{result.metric} went from {show(result.champion)} to {show(result.candidate)}"
        f"{_tell_real(result, show)}: {word} by {show(by)} ({sure}: {show(low)} to {show(high)})"
    )
    return told + _tell_margin(result, margin, show)


def tell_guard(result: GuardResult) -> str:
    """Why a version does not keep a guard."""
    name = f"{result.metric} on {result.dataset}" if result.dataset else result.metric
    if result.candidate is None:
        return f"{name} was not measured, and the policy guards it"
    if result.rule != "not_worse_by":
        show = _Shown((result.candidate, result.limit))
        bound = result.rule.replace("_", " ")
        return f"{name} is {show(result.candidate)}: the policy wants {bound} {show(result.limit)}"
    if result.champion is None:
        return f"{name} of the champion was not measured, and the policy guards it"
    if result.worse_by is None:
        return f"{name} has no value of real data to be near to, and the policy guards it"
    show = _Shown((result.candidate, result.champion), (result.worse_by, result.limit))
    return (
        f"{name} is {show(result.candidate)} after {show(result.champion)}: worse by "
        f"{show(result.worse_by)}, and the policy allows {show(result.limit)}"
    )


class _Shown:
    """Writes numbers with as many digits as tell those apart that are not equal."""

    def __init__(self, *compared: Iterable[float]) -> None:
        """Numbers of one of `compared` may be held against one another."""
        pairs = [pair for numbers in compared for pair in pairwise(sorted(set(numbers)))]
        self._digits = next(
            (
                digits
                for digits in range(FEWEST_DIGITS, MOST_DIGITS)
                if all(f"{one:.{digits}g}" != f"{other:.{digits}g}" for one, other in pairs)
            ),
            MOST_DIGITS,
        )

    def __call__(self, number: float) -> str:
        return f"{number or 0.0:.{self._digits}g}"  # never -0


def _tell_real(result: PrimaryResult, show: _Shown) -> str:
    """What the metric should be near to."""
    if result.better != CLOSER or result.real is None:
        return ""
    return f", where real data have {show(result.real)}"


def _tell_margin(result: PrimaryResult, margin: float, show: _Shown) -> str:
    """How the improvement compares with the margin, where that decides."""
    if result.low > margin:
        return f", more than the margin of {show(margin)}" if margin else ""
    if result.improvement < 0:
        return ""
    if result.improvement <= margin:
        return f", not more than the margin of {show(margin)}"
    beyond = f" to be more than the margin of {show(margin)}" if margin else ""
    return f", which is not certain{beyond}: it takes more than {show(result.needed)}"
