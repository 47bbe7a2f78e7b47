"""What the gate decided, with its numbers and its reasons in words."""

from dataclasses import asdict, dataclass
from typing import Any

from worker.gate.policy import Guard, Policy

DIGITS = 6  # that a verdict keeps of a number: the order of a processor's additions shows beyond


@dataclass(frozen=True)
class PrimaryResult:
    """The primary metric of both versions, and the improvement with its interval.

    `needed` is the improvement that would have been enough.
    """

    metric: str
    better: str  # lower | higher
    candidate: float
    champion: float
    improvement: float
    low: float
    high: float
    needed: float
    items_sd: float
    training_sd: float | None


@dataclass(frozen=True)
class GuardResult:
    """A guard's limit and the numbers that it was held against; None where there are none."""

    metric: str
    dataset: str | None
    rule: str
    limit: float
    candidate: float | None
    champion: float | None
    kept: bool


@dataclass(frozen=True)
class Verdict:
    """Whether a version is promoted, and why."""

    promoted: bool
    reasons: tuple[str, ...]
    policy: Policy
    primary: PrimaryResult | None = None
    guards: tuple[GuardResult, ...] = ()

    @property
    def text(self) -> str:
        """The reasons in one line."""
        return "; ".join(self.reasons)

    @property
    def data(self) -> dict[str, Any]:
        """Plain data: equal verdicts are equal JSON."""
        return {
            "promoted": self.promoted,
            "reasons": list(self.reasons),
            "primary": _rounded(asdict(self.primary)) if self.primary else None,
            "guards": [_rounded(asdict(each)) for each in self.guards],
            "policy": self.policy.model_dump(mode="json"),
        }


def refusal(policy: Policy, reason: str) -> Verdict:
    """The verdict on a version that could not be judged."""
    return Verdict(False, (reason,), policy)


def tell_guard(guard: Guard, result: GuardResult) -> str:
    """Why a version does not keep a guard, in words."""
    where = f" on {guard.dataset}" if guard.dataset else ""
    if result.candidate is None:
        return f"{guard.metric}{where} was not measured, and the policy guards it"
    if guard.rule == "not_worse_by":
        if result.champion is None:
            return f"{guard.metric}{where} of the champion was not measured"
        return (
            f"{guard.metric}{where} is {result.candidate:.4g} after {result.champion:.4g}: the "
            f"policy lets it be worse by {guard.limit:g}"
        )
    limit = "at most" if guard.rule == "at_most" else "at least"
    return (
        f"{guard.metric}{where} is {result.candidate:.4g}: the policy wants {limit} {guard.limit:g}"
    )


def tell_primary(result: PrimaryResult, margin: float, confidence: float) -> str:
    """How the primary metric changed, in words."""
    change = f"{result.metric} went from {result.champion:.4g} to {result.candidate:.4g}: "
    change += _tell_change(result.improvement, result.low, result.high, confidence)
    if result.low > margin:
        return f"{change}, more than the margin of {margin:g}"
    if result.high > margin:
        needed = f"better by {result.needed:.4g} would be enough for the margin of {margin:g}"
        return f"{change}, and {needed}"
    if result.improvement < 0:
        return f"{change}, where the policy wants it better by more than {margin:g}"
    return f"{change}, less than the margin of {margin:g}"


def _tell_change(by: float, low: float, high: float, confidence: float) -> str:
    """An improvement with its interval, or how much worse it is."""
    word = "better"
    if by < 0:
        word, by, low, high = "worse", -by, -high, -low
    return f"{word} by {by:.4g} ({100 * confidence:g}%: {low:.4g} to {high:.4g})"


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in values.items()
    }
