"""Turning what a user asked for into what a job keeps: every name pinned, every setting checked.

A pinned spec names versions (`digits:3`), holds the complete parameters, and therefore means the
same tomorrow. Everything that can be refused without running a model is refused here.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from db import datasets, models
from db.errors import NotFound, Refused, unknown
from db.tables import Dataset, DatasetVersion, Model, ModelVersion
from worker.families import Family, find_family
from worker.services import Services
from worker.specs import Finetune, Generate, Params, Prompt, Train, parse_params

MAX_PROMPTS_BYTES = 20 * 2**20

AnySpec = Train | Finetune | Generate
S = TypeVar("S", bound=Params)


@dataclass(frozen=True)
class Pinned:
    """A spec that is fit to be stored."""

    spec: AnySpec
    model: str  # the model's bare name
    family: Family
    version: ModelVersion | None  # what a generate or finetune job starts from

    @property
    def data(self) -> dict[str, Any]:
        """The spec as plain data, as the job's row keeps it."""
        return self.spec.model_dump(mode="json")

    @property
    def spec_hash(self) -> str:
        """SHA-256 of the canonical JSON of the spec."""
        text = json.dumps(self.data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def pin(services: Services, session: Session, spec: AnySpec) -> Pinned:
    """Resolve the spec's names and check all it says; raises `NotFound` or `Refused`."""
    if isinstance(spec, Train):
        return _pin_train(session, spec)
    if isinstance(spec, Finetune):
        return _pin_finetune(services, session, spec)
    return _pin_generate(services, session, spec)


def _pin_train(session: Session, spec: Train) -> Pinned:
    family = find_family(spec.family)
    _refuse_other_family(session, spec.model, family)
    dataset, version = datasets.resolve(session, spec.dataset)
    _refuse_other_medium(family, dataset, version)
    params = parse_params(family.params, spec.params, what=family.name)
    pinned = _with(
        spec, dataset=f"{dataset.name}:{version.number}", params=params.model_dump(mode="json")
    )
    return Pinned(pinned, spec.model, family, None)


def _pin_finetune(services: Services, session: Session, spec: Finetune) -> Pinned:
    model, parent = models.resolve(session, spec.model)
    family = find_family(model.family)
    dataset, version = datasets.resolve(session, spec.dataset)
    _refuse_other_medium(family, dataset, version)
    if family.takes_labels:
        _refuse_other_labels(services, model, parent, dataset, version)
    params = parse_params(family.params, {**parent.params, **spec.params}, what=family.name)
    pinned = _with(
        spec,
        model=f"{model.name}:{parent.number}",
        dataset=f"{dataset.name}:{version.number}",
        params=params.model_dump(mode="json"),
    )
    return Pinned(pinned, model.name, family, parent)


def _pin_generate(services: Services, session: Session, spec: Generate) -> Pinned:
    model, version = models.resolve(session, spec.model)
    family = find_family(model.family)
    sampling = parse_params(family.sampling, spec.params, what=f"sampling from {family.name}")
    if spec.label is not None:
        _refuse_unknown_label(services, model, version, spec.label)
    if spec.prompts:
        _refuse_prompts(family, spec.prompts)
    pinned = _with(
        spec, model=f"{model.name}:{version.number}", params=sampling.model_dump(mode="json")
    )
    return Pinned(pinned, model.name, family, version)


def _with(spec: S, **changes: Any) -> S:
    """The spec with `changes`, validated again (`model_copy` would not)."""
    return type(spec).model_validate({**spec.model_dump(), **changes})


def _refuse_other_family(session: Session, name: str, family: Family) -> None:
    try:
        model = models.get(session, name)
    except NotFound:
        return
    if model.family != family.name:
        raise Refused(
            f"model {name!r} is of family {model.family!r}, not {family.name!r}; "
            "choose another name for it"
        )


def _refuse_other_medium(family: Family, dataset: Dataset, version: DatasetVersion) -> None:
    if version.kind != family.media:
        raise Refused(
            f"family {family.name!r} learns from {family.media} datasets, and "
            f"{dataset.name}:{version.number} is a {version.kind} dataset"
        )


def _refuse_other_labels(
    services: Services,
    model: Model,
    parent: ModelVersion,
    dataset: Dataset,
    version: DatasetVersion,
) -> None:
    """A version cannot learn labels that it has not been made for."""
    found = version.summary.get("labels") or []
    if not found:
        return
    known = _labels(services, parent.files["config.json"]["key"])
    if strange := sorted(set(found) - set(known)):
        raise Refused(
            f"{dataset.name}:{version.number} has labels {strange[:10]} that "
            f"{model.name}:{parent.number} has not; it has: {', '.join(known) or 'none'}"
        )


def _refuse_unknown_label(
    services: Services, model: Model, version: ModelVersion, label: str
) -> None:
    labels = _labels(services, version.files["config.json"]["key"])
    if not labels:
        raise Refused(
            f"model {model.name}:{version.number} was trained without labels; drop the label"
        )
    if label not in labels:
        raise Refused(f"model {model.name}:{version.number}: " + unknown("label", label, labels))


@lru_cache(maxsize=64)
def _labels(services: Services, config_key: str) -> tuple[str, ...]:
    """The labels that a version knows, from its `config.json`; its key is the digest of it."""
    with services.store.open(config_key) as file:
        return tuple(json.load(file)["shape"]["labels"])


def _refuse_prompts(family: Family, prompts: Sequence[Prompt]) -> None:
    if not family.takes_prompts:
        raise Refused(f"family {family.name!r} takes no prompts")
    size = sum(len(prompt.prompt.encode()) for prompt in prompts)
    if size > MAX_PROMPTS_BYTES:
        raise Refused(
            f"the prompts have {size} bytes; at most {MAX_PROMPTS_BYTES} are allowed in one job: "
            "split them into several"
        )
