"""What the gate decides about a version, and the change of the alias that follows."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from db import promotions
from db.errors import BadInput, DigestMismatch, NotFound
from db.promotions import Reason
from worker.gate.decide import decide
from worker.gate.verdict import Verdict, refusal
from worker.services.connections import Services
from worker.services.evaluations import read_items
from worker.services.evidence import Evidence


@dataclass(frozen=True)
class Judgement:
    """What the gate decided about a version that is to have an alias, and on what grounds."""

    evidence: Evidence
    verdict: Verdict

    @property
    def accepted(self) -> bool:
        """Whether the version has the alias, or is to have it."""
        return self.verdict.promoted or self.evidence.pinned.spec.force

    @property
    def outcome(self) -> str:
        """What the history calls it."""
        if self.evidence.pinned.spec.force:
            return promotions.FORCED
        return promotions.PROMOTED if self.verdict.promoted else promotions.REFUSED

    @property
    def text(self) -> str:
        """The decision and its reasons in a line."""
        spec = self.evidence.pinned.spec
        if self.evidence.holds:
            return f"{spec.model} is the {spec.alias} already"
        became = {
            promotions.FORCED: f"{spec.model} was made the {spec.alias} by force",
            promotions.PROMOTED: f"{spec.model} is the {spec.alias} now",
            promotions.REFUSED: f"{spec.model} does not become the {spec.alias}",
        }
        return f"{became[self.outcome]}: {self.verdict.text}"

    @property
    def data(self) -> dict[str, Any]:
        """The verdict with what it is about: the report of a promote job, and in the history."""
        found = self.evidence
        measured = [each for each in (found.ours, found.theirs) if each]
        return {
            "model": found.model.name,
            "alias": found.pinned.spec.alias,
            "candidate": found.pinned.version.number,
            "champion": found.champion.number if found.champion else None,
            "outcome": None if found.holds else self.outcome,
            "protocol": measured[0].protocol if measured else None,
            "evaluated_by": [each.job_id for each in measured],
            **self.verdict.data,
        }


def judge(services: Services, found: Evidence) -> Judgement:
    """Let the gate decide on what was gathered; changes nothing."""
    policy = found.pinned.params
    if found.holds:
        return Judgement(found, Verdict(True, ("it has the alias",), policy))
    if found.missing or found.ours is None:
        return Judgement(found, refusal(policy, found.missing or "it has not been evaluated"))
    try:
        candidate = read_items(services, found.ours, found.elsewhere[0])
        champion = read_items(services, found.theirs, found.elsewhere[1]) if found.theirs else None
    except (NotFound, DigestMismatch, BadInput) as error:
        return Judgement(found, refusal(policy, str(error)))
    return Judgement(found, decide(candidate, champion, policy))


def record(session: Session, judged: Judgement, reason: Reason) -> None:
    """Move the alias as was decided, or note the refusal; neither if the version has it already.

    Raises `db.promotions.Moved` if the alias was moved since.
    """
    found = judged.evidence
    about = (session, found.model, found.pinned.spec.alias, found.pinned.version)
    if found.holds:
        return
    if not judged.accepted:
        promotions.refuse(*about, reason)
        return
    expected = found.champion.id if found.champion else None
    promotions.move(*about, expected=expected, outcome=judged.outcome, reason=reason)
