"""Pinned specs: every name is a version, and the family's settings are complete and typed.

A job's row keeps its pinned spec as JSON, so the job means the same tomorrow. The scheduler pins
what was asked for (`scheduler.submission.pinning`); a worker reads it back when an attempt begins.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

from sqlalchemy.orm import Session

from db import models
from db.registry import Reference
from db.tables import Model, ModelVersion
from worker.families import find_family
from worker.files import canonical_json
from worker.gate.policy import Policy, policy_for
from worker.networks.family import Family
from worker.networks.params import SamplingParams, TrainingParams
from worker.specs import (
    Evaluate,
    Finetune,
    Generate,
    Params,
    Promote,
    Publish,
    Spec,
    Train,
    parse_params,
)

REFERENCES = ("model", "dataset", "against")  # the fields of specs that name versions


@dataclass(frozen=True)
class _Pinned:
    """`params` holds every setting; `spec.params` only those that were given."""

    spec: Spec
    family: Family
    params: Params
    version: ModelVersion | None  # what the job starts from

    @cached_property
    def model(self) -> str:
        """The model's name, without a version."""
        return Reference.parse(self.spec.model).name

    @property
    def names(self) -> dict[str, str | None]:
        """What the spec's fields name: versions."""
        fields = type(self.spec).model_fields
        return {name: getattr(self.spec, name) for name in REFERENCES if name in fields}

    @property
    def data(self) -> dict[str, Any]:
        """The plain data that the job's row keeps."""
        return self.data_of(self.spec)

    def data_of(self, spec: Spec) -> dict[str, Any]:
        """The data of another `spec` that names the same things and has the same settings."""
        return spec.model_dump(mode="json", exclude={"format"}) | self._pinned_data

    @cached_property
    def _pinned_data(self) -> dict[str, Any]:
        if isinstance(self.spec, Publish):
            return self.names
        if isinstance(self.spec, Promote):
            return self.names | {"policy": self.params.model_dump(mode="json")}
        settings = {"params": self.params.model_dump(mode="json")}
        return self.names | settings | format_in_row(self.family)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the canonical JSON of `data`."""
        return hash_of(self.data)

    @property
    def work_key(self) -> int | None:
        """Equal for shards that can run in one forward pass; None for those that run alone."""
        return None


@dataclass(frozen=True)
class PinnedTraining(_Pinned):
    """A new version, trained from scratch or, if there is a `version`, from that."""

    spec: Train | Finetune
    params: TrainingParams


@dataclass(frozen=True)
class PinnedGeneration(_Pinned):
    """Samples made with `version`."""

    spec: Generate
    params: SamplingParams
    version: ModelVersion

    @cached_property
    def work_key(self) -> int | None:
        """See `_Pinned.work_key`: 64 bits over version, settings, marks and the data to begin from.

        Seeds, labels and prompts may differ within one pass; the precision is the worker's own.
        """
        params = self.params.model_dump(mode="json")
        shared = {"version": self.version.id, "params": params, "dataset": self.spec.dataset}
        if self.spec.marks is not None:
            shared["marks"] = self.spec.marks.model_dump(mode="json")
        digest = hashlib.sha256(canonical_json(shared)).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


@dataclass(frozen=True)
class PinnedEvaluation(_Pinned):
    """The numbers of `version`."""

    spec: Evaluate
    params: SamplingParams
    version: ModelVersion


@dataclass(frozen=True)
class PinnedPromotion(_Pinned):
    """An alias for `version`, by the policy `params`."""

    spec: Promote
    params: Policy
    version: ModelVersion


@dataclass(frozen=True)
class PinnedPublication(_Pinned):
    """The samples of a job that `version` made, or the files of `version`."""

    spec: Publish
    version: ModelVersion
    items: int = 0  # how many samples or files; known where the job is cut into shards
    lists_all: bool = False  # as `Target.lists_all`; known there, too


Pinned = PinnedTraining | PinnedGeneration | PinnedEvaluation | PinnedPromotion | PinnedPublication
Resolve = Callable[[Session, str], tuple[Model, ModelVersion]]


def hash_of(data: Mapping[str, Any]) -> str:
    """The SHA-256 of the canonical JSON of a pinned spec's `data`."""
    return hashlib.sha256(canonical_json(data)).hexdigest()


def format_in_row(family: Family) -> dict[str, int]:
    """What a job's row says of the format of its settings: nothing, if that is the first."""
    return {"format": family.format} if family.format > 1 else {}


def is_pinned(spec: Spec) -> bool:
    """Whether the spec names its model's version, or needs none."""
    return isinstance(spec, Train) or Reference.parse(spec.model).number is not None


def pin_model(session: Session, spec: Spec, resolve: Resolve = models.resolve) -> Pinned:
    """The spec with its model's version named and its family's settings complete.

    What is pinned already stays as it is. `resolve` finds the version that a reference means.
    Raises `Refused` or `NotFound`.
    """
    if isinstance(spec, Train):
        family = find_family(spec.family)
        return PinnedTraining(spec, family, complete(spec, family, None), None)
    if isinstance(spec, Publish) and spec.take_down:
        resolve = models.resolve_removed
    model, version = resolve(session, spec.model)
    family = find_family(model.family)
    named = spec.model_copy(update={"model": f"{model.name}:{version.number}"})
    if isinstance(named, Finetune):
        return PinnedTraining(named, family, complete(named, family, version), version)
    if isinstance(named, Publish):
        return PinnedPublication(named, family, complete(named, family, version), version)
    if isinstance(named, Promote):
        return PinnedPromotion(named, family, complete(named, family, version), version)
    if isinstance(named, Evaluate):
        return PinnedEvaluation(named, family, complete(named, family, version), version)
    return PinnedGeneration(named, family, complete(named, family, version), version)


@overload
def complete(
    spec: Generate | Evaluate, family: Family, version: ModelVersion | None
) -> SamplingParams: ...
@overload
def complete(
    spec: Train | Finetune, family: Family, version: ModelVersion | None
) -> TrainingParams: ...
@overload
def complete(spec: Promote, family: Family, version: ModelVersion | None) -> Policy: ...
@overload
def complete(spec: Spec, family: Family, version: ModelVersion | None) -> Params: ...
def complete(spec: Spec, family: Family, version: ModelVersion | None) -> Params:
    """All settings of a spec: its own, else (to finetune) the version's, else the family's.

    Those of a promotion are its policy, completed by the medium's; a publication has none.
    """
    if isinstance(spec, Publish):
        return Params()
    if isinstance(spec, Promote):
        return policy_for(family.media, spec.policy)
    what = f"sampling from {family.name}"
    if isinstance(spec, Generate | Evaluate):
        given = family.sampling_settings(spec.params, spec.format or family.format, what=what)
        return parse_params(family.sampling, given, what=what)
    given = family.training_settings(
        spec.params, spec.format or family.format, what=family.name, whole=version is None
    )
    return parse_params(family.params, _inherited(family, version) | given, what=family.name)


def _inherited(family: Family, version: ModelVersion | None) -> dict[str, Any]:
    """The parameters that fine-tuning takes from the version that it starts from."""
    if version is None:
        return {}
    what = f"model version {version.number}"
    return family.training_settings(version.params, version.format, what=what)
