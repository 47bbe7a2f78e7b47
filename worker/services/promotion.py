"""What the gate decides about a version, and the change of the alias that follows."""

import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from db import datasets, evaluations, models, promotions
from db.errors import BadInput, DigestMismatch, NotFound
from db.promotions import Reason
from db.tables import Dataset, Evaluation, Model, ModelVersion
from worker.gate.decide import decide
from worker.gate.verdict import Verdict, refusal
from worker.services.connections import Services
from worker.services.evaluations import read_items
from worker.services.pinned import PinnedPromotion

# measures a version by the protocol of an evaluation; None if it cannot
Measure = Callable[[ModelVersion, Evaluation], Evaluation | None]


@dataclass(frozen=True)
class Judgement:
    """What the gate decided about a version that is to have an alias, and on what grounds."""

    model: Model
    version: ModelVersion
    champion: ModelVersion | None  # what has the alias
    pinned: PinnedPromotion
    verdict: Verdict
    evaluations: tuple[Evaluation, ...] = ()  # of the version and of the champion

    @property
    def changes(self) -> bool:
        """Whether the alias is to be moved."""
        return (self.verdict.promoted or self.pinned.spec.force) and not self.holds

    @property
    def holds(self) -> bool:
        """Whether the version has the alias already."""
        return self.champion is not None and self.champion.id == self.version.id

    @property
    def outcome(self) -> str:
        """What the history calls it."""
        if self.pinned.spec.force:
            return promotions.FORCED
        return promotions.PROMOTED if self.verdict.promoted else promotions.REFUSED

    @property
    def text(self) -> str:
        """The decision and its reasons in a line."""
        name, alias = f"{self.model.name}:{self.version.number}", self.pinned.spec.alias
        if self.holds:
            return f"{name} is the {alias} already"
        became = {
            promotions.FORCED: f"{name} was made the {alias} by force",
            promotions.PROMOTED: f"{name} is the {alias} now",
            promotions.REFUSED: f"{name} does not become the {alias}",
        }
        return f"{became[self.outcome]}: {self.verdict.text}"

    @property
    def data(self) -> dict[str, Any]:
        """The verdict with what it is about: the report of a promote job, and in the history."""
        number = self.champion.number if self.champion else None
        return {
            "model": self.model.name,
            "alias": self.pinned.spec.alias,
            "candidate": self.version.number,
            "champion": number,
            "outcome": None if self.holds else self.outcome,
            "evaluations": [each.id for each in self.evaluations],
            "protocol": self.evaluations[0].protocol if self.evaluations else None,
            **self.verdict.data,
        }


def judge(services: Services, pinned: PinnedPromotion, measure: Measure) -> Judgement:
    """Decide about a promotion by the newest evaluation of its version; changes nothing.

    Compares it with the champion's of the same protocol, which `measure` makes if there is none.
    """
    spec, version = pinned.spec, pinned.version
    with services.database.read() as session:
        model = models.get(session, pinned.model)
        champion = promotions.holder(session, model, spec.alias)
        ours = evaluations.newest(session, version.id, _dataset_id(session, spec.dataset))
        theirs = (
            evaluations.find(session, champion.id, ours.protocol_sha256)
            if champion and ours
            else None
        )
        dataset = _reference(session, ours) if ours else spec.dataset or "DATASET"
    about = (model, version, champion, pinned)
    if champion is not None and champion.id == version.id:
        return Judgement(*about, Verdict(True, ("it has the alias",), pinned.params))
    evaluate = f"genmill enqueue evaluate {spec.model} --dataset {dataset} --wait"
    if ours is None:
        where = f" on {dataset}" if spec.dataset else ""
        reason = f"it has not been evaluated{where}: run `{evaluate}`"
        return Judgement(*about, refusal(pinned.params, reason))
    if champion is not None and theirs is None and not spec.force:
        theirs = measure(champion, ours)
    if champion is not None and theirs is None:
        other = f"{model.name}:{champion.number}"
        reason = (
            f"{other} was not evaluated by the same protocol: run `{evaluate} --against {other}`"
        )
        return Judgement(*about, refusal(pinned.params, reason), (ours,))
    both = (ours,) if theirs is None else (ours, theirs)
    return Judgement(*about, _decide(services, pinned, both), both)


def record(session: Session, judged: Judgement, reason: Reason) -> None:
    """Move the alias as was decided, or note the refusal; neither if the version has it already.

    Raises `db.promotions.Moved` if the alias was moved since.
    """
    alias = judged.pinned.spec.alias
    if judged.holds:
        return
    if not judged.changes:
        promotions.refuse(session, judged.model, alias, judged.version, reason)
        return
    promotions.move(
        session,
        judged.model,
        alias,
        judged.version,
        expected=judged.champion.id if judged.champion else None,
        outcome=judged.outcome,
        reason=reason,
    )


def who() -> str:
    """The user and the host of this process, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:200]


def _decide(services: Services, pinned: PinnedPromotion, both: tuple[Evaluation, ...]) -> Verdict:
    policy = pinned.params
    try:
        items = [read_items(services, each, policy) for each in both]
    except (NotFound, DigestMismatch, BadInput) as error:
        return refusal(policy, str(error))
    return decide(items[0], items[1] if len(items) > 1 else None, policy)


def _dataset_id(session: Session, reference: str | None) -> str | None:
    return datasets.resolve(session, reference)[1].id if reference else None


def _reference(session: Session, evaluation: Evaluation) -> str:
    """The dataset version that an evaluation used."""
    data = datasets.version(session, evaluation.dataset_version_id)
    return f"{session.get_one(Dataset, data.dataset_id).name}:{data.number}"
