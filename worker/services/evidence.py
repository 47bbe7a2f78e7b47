"""What the gate needs to decide: the evaluations of a version and of the one that has the alias."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from db import datasets, evaluations, models, promotions
from db.tables import Dataset, Model, ModelVersion
from worker.gate.items import Numbers
from worker.services.connections import Services
from worker.services.evaluations import AnyEvaluation
from worker.services.pinned import PinnedPromotion

# measures a version, NAME:VERSION, by a protocol; None if it cannot
Measure = Callable[[str, Mapping[str, Any]], AnyEvaluation | None]
Elsewhere = dict[str, Numbers]  # numbers on the datasets of guards


@dataclass(frozen=True)
class Evidence:
    """A version that is to have an alias, the version that has it, and what was measured of both.

    `missing` says what was not measured, and how to do it.
    """

    pinned: PinnedPromotion
    model: Model
    champion: ModelVersion | None
    ours: AnyEvaluation | None = None
    theirs: AnyEvaluation | None = None
    elsewhere: tuple[Elsewhere, Elsewhere] = field(default_factory=lambda: ({}, {}))
    missing: str | None = None

    @property
    def holds(self) -> bool:
        """Whether the version has the alias already."""
        return self.champion is not None and self.champion.id == self.pinned.version.id


def gather(services: Services, pinned: PinnedPromotion, measure: Measure) -> Evidence:
    """The newest evaluation of the version, and the champion's by the same protocol.

    What is missing of the champion, or on the datasets of guards, is measured if it can be.
    """
    spec, version = pinned.spec, pinned.version
    with services.database.read() as session:
        model = models.get(session, pinned.model)
        champion = promotions.holder(session, model, spec.alias)
        data_id = datasets.resolve(session, spec.dataset)[1].id if spec.dataset else None
        ours = evaluations.newest(session, version.id, data_id)
        dataset = _reference(session, ours.dataset_version_id) if ours else spec.dataset or "D"
    found = Evidence(pinned, model, champion)
    run = f"genmill enqueue evaluate {spec.model} --dataset {dataset} --wait"
    if found.holds:
        return found
    if ours is None:
        where = f" on {dataset}" if spec.dataset else ""
        reason = f"it has not been evaluated{where}: run `{run}`"
        return Evidence(pinned, model, champion, missing=reason)
    measure = _measure_nothing if spec.force else measure
    theirs = _like(services, model, champion, ours, measure) if champion else None
    if champion is not None and theirs is None:
        other = f"{model.name}:{champion.number}"
        reason = f"{other} was not evaluated by the same protocol: run `{run} --against {other}`"
        return Evidence(pinned, model, champion, ours, missing=reason)
    elsewhere = _elsewhere(services, found, ours, measure)
    return Evidence(pinned, model, champion, ours, theirs, elsewhere)


def _elsewhere(
    services: Services, found: Evidence, ours: AnyEvaluation, measure: Measure
) -> tuple[Elsewhere, Elsewhere]:
    """The numbers of both versions on the datasets of the policy's guards."""
    version, numbers = found.pinned.version, (Elsewhere(), Elsewhere())
    wanted = {guard.dataset for guard in found.pinned.params.guard if guard.dataset}
    for reference in sorted(wanted):
        with services.database.read() as session:
            data = datasets.resolve(session, reference)[1]
            name = _reference(session, data.id)
            mine: AnyEvaluation | None = evaluations.newest(session, version.id, data.id)
        # a judge belongs to its dataset
        there = {**ours.protocol, "dataset": name, "judge": None}
        mine = mine or measure(found.pinned.spec.model, there)
        its = (
            _like(services, found.model, found.champion, mine, measure)
            if mine and found.champion
            else None
        )
        for side, each in zip(numbers, (mine, its), strict=True):
            side[reference] = each.numbers if each else {}
    return numbers


def _like(
    services: Services,
    model: Model,
    version: ModelVersion,
    other: AnyEvaluation,
    measure: Measure,
) -> AnyEvaluation | None:
    """A version's evaluation by the protocol of another one, measured unless it is recorded."""
    with services.database.read() as session:
        known = evaluations.find(session, version.id, other.protocol_sha256)
    return known or measure(f"{model.name}:{version.number}", other.protocol)


def _measure_nothing(name: str, protocol: Mapping[str, Any]) -> None:
    """Where the gate's decision is overruled, nothing is measured for it."""


def _reference(session: Session, dataset_version_id: str) -> str:
    data = datasets.version(session, dataset_version_id)
    return f"{session.get_one(Dataset, data.dataset_id).name}:{data.number}"
