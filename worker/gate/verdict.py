"""What the gate decided, with its numbers and its reasons in words."""

from dataclasses import asdict, dataclass
from typing import Any

from worker.gate.policy import Policy

DIGITS = 6  # that a verdict keeps of a number: the order of a processor's additions shows beyond


@dataclass(frozen=True)
class PrimaryResult:
    """The primary metric of both versions, and the improvement with its interval.

    It must exceed `needed` to be certain. `real` is real data's value.
    """

    metric: str
    better: str  # lower | higher | closer: to `real`
    candidate: float
    champion: float
    improvement: float
    low: float
    high: float
    needed: float
    items_sd: float
    training_sd: float | None
    real: float | None = None


@dataclass(frozen=True)
class GuardResult:
    """A guard's limit and the numbers that it was held against; None where there are none.

    `worse_by` is how much worse the candidate is than the champion, in the metric's own unit.
    """

    metric: str
    dataset: str | None
    rule: str
    limit: float
    candidate: float | None
    champion: float | None
    worse_by: float | None
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


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in values.items()
    }
