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

from db import datasets, jobs, models
from db.errors import NotFound, Refused, unknown
from db.tables import Dataset, DatasetVersion, Model, ModelVersion
from scheduler.submission.source_images import check_given
from worker.families import find_family, own_record
from worker.files import canonical_json
from worker.networks.family import Family
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
        return hashlib.sha256(canonical_json(self.data)).hexdigest()


def pin(services: Services, session: Session, spec: AnySpec) -> Pinned:
    """Resolve the spec's names and check all it says; raises `NotFound` or `Refused`."""
    if isinstance(spec, Train):
        return _pin_train(session, spec)
    if isinstance(spec, Finetune):
        return _pin_finetune(services, session, spec)
    return _pin_generate(services, session, spec)


def complete(spec: AnySpec, family: Family, version: ModelVersion | None) -> dict[str, Any]:
    """All the parameters that a spec means: its own, then those of the version, then the defaults.

    `version` is what the job starts from; its parameters count for training on alone.
    """
    meant: Params
    if isinstance(spec, Generate):
        meant = parse_params(family.sampling, spec.params, what=f"sampling from {family.name}")
    else:
        inherited = version.params if version else {}
        meant = parse_params(family.params, {**inherited, **spec.params}, what=family.name)
    return meant.model_dump(mode="json")


def refuse_other_family(session: Session, name: str, family: Family) -> None:
    """Refuse a name whose model is of another family, or will be once a job has created it."""
    try:
        found, whose = models.get(session, name).family, f"model {name!r}"
    except NotFound:
        job = jobs.unfinished_training(session, name)
        if job is None:
            return
        found, whose = job.spec["family"], f"model {name!r}, which job {job.id} will create,"
    if found != family.name:
        raise Refused(
            f"{whose} is of family {found!r}, not {family.name!r}; choose another name for it"
        )


def _pin_train(session: Session, spec: Train) -> Pinned:
    family = find_family(spec.family)
    if not family.trains:
        raise Refused(
            f"family {family.name!r} does not train from nothing: take a model in with `genmill "
            f"model import DIR --name {spec.model}`, then `genmill enqueue finetune {spec.model} "
            f"--dataset {spec.dataset}`"
        )
    refuse_other_family(session, spec.model, family)
    dataset, version = datasets.resolve(session, spec.dataset)
    _refuse_unfit_data(family, dataset, version)
    pinned = _with(
        spec, dataset=f"{dataset.name}:{version.number}", params=complete(spec, family, None)
    )
    return Pinned(pinned, spec.model, family, None)


def _pin_finetune(services: Services, session: Session, spec: Finetune) -> Pinned:
    model, parent = models.resolve(session, spec.model)
    family = find_family(model.family)
    dataset, version = datasets.resolve(session, spec.dataset)
    _refuse_unfit_data(family, dataset, version)
    if family.takes_labels and parent.params.get("conditional", True):
        _refuse_other_labels(services, model, parent, dataset, version)
    pinned = _with(
        spec,
        model=f"{model.name}:{parent.number}",
        dataset=f"{dataset.name}:{version.number}",
        params=complete(spec, family, parent),
    )
    return Pinned(pinned, model.name, family, parent)


def _pin_generate(services: Services, session: Session, spec: Generate) -> Pinned:
    model, version = models.resolve(session, spec.model)
    family = find_family(model.family)
    params = complete(spec, family, version)
    if spec.label is not None:
        _refuse_unknown_label(services, model, version, spec.label)
    if spec.prompts:
        _refuse_prompts(family, spec.prompts)
    pinned = _with(spec, model=f"{model.name}:{version.number}", params=params)
    if spec.dataset is None:
        family.sampling(**params).check_images(None)
    else:
        pinned = _pin_images(services, session, pinned, family, version)
    return Pinned(pinned, model.name, family, version)


def _pin_images(
    services: Services, session: Session, spec: Generate, family: Family, version: ModelVersion
) -> Generate:
    """The spec with the version of the images that it names, which the model can take."""
    dataset, images = datasets.resolve(session, str(spec.dataset))
    pinned = _with(spec, dataset=f"{dataset.name}:{images.number}")
    check_given(pinned, family, images, shape=_shape(services, version))
    return pinned


def _with(spec: S, **changes: Any) -> S:
    """The spec with `changes`, validated again (`model_copy` would not)."""
    return type(spec).model_validate({**spec.model_dump(), **changes})


def _refuse_unfit_data(family: Family, dataset: Dataset, version: DatasetVersion) -> None:
    if version.kind != family.media:
        raise Refused(
            f"family {family.name!r} learns from {family.media} datasets, and "
            f"{dataset.name}:{version.number} is one of kind {version.kind}"
        )
    summary = version.summary
    if family.needs_captions and not (summary.get("captions") or summary.get("labels")):
        raise Refused(
            f"family {family.name!r} learns from captions, and {dataset.name}:{version.number} has "
            'neither captions nor labels; add it with a metadata.jsonl of lines {"file_name": ..., '
            '"text": ...} beside the pictures, or with the pictures in folders that say what they '
            "show"
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
    known = _shape(services, parent)["labels"]
    if strange := sorted(set(found) - set(known)):
        raise Refused(
            f"{dataset.name}:{version.number} has labels {strange[:10]} that "
            f"{model.name}:{parent.number} has not; it has: {', '.join(known) or 'none'}"
        )


def _refuse_unknown_label(
    services: Services, model: Model, version: ModelVersion, label: str
) -> None:
    labels = _shape(services, version)["labels"]
    if not labels:
        raise Refused(
            f"model {model.name}:{version.number} was trained without labels; drop the label"
        )
    if label not in labels:
        raise Refused(f"model {model.name}:{version.number}: " + unknown("label", label, labels))


def _shape(services: Services, version: ModelVersion) -> dict[str, Any]:
    """What a version makes, from its `config.json`: `labels`, for images `size`, `channels`."""
    return _read_shape(services, version.files["config.json"]["key"])


@lru_cache(maxsize=64)
def _read_shape(services: Services, config_key: str) -> dict[str, Any]:
    """The key is the digest of the file."""
    with services.store.open(config_key) as file:
        shape: dict[str, Any] = own_record(json.load(file))["shape"]
        return shape


def _refuse_prompts(family: Family, prompts: Sequence[Prompt]) -> None:
    if not family.takes_prompts:
        raise Refused(f"family {family.name!r} takes no prompts")
    size = sum(len(prompt.prompt.encode()) for prompt in prompts)
    if size > MAX_PROMPTS_BYTES:
        raise Refused(
            f"the prompts have {size} bytes; at most {MAX_PROMPTS_BYTES} are allowed in one job: "
            "split them into several"
        )
