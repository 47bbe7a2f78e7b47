"""Pinning: every name in a request becomes a version, and every setting is checked.

A pinned spec (`worker.services.pinned`) means the same tomorrow. Everything that can be refused
without running a model is refused here.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from db import artifacts, datasets, evaluations, jobs, lineage, models, targets
from db.errors import NotFound, Refused
from db.states import JobState
from db.tables import Dataset, DatasetVersion, Model, ModelVersion
from worker.acceptance import WRITTEN, Acceptance
from worker.conversations import Conversation
from worker.media import find_medium
from worker.media.base import Medium
from worker.networks.family import Family
from worker.networks.version_folder import CONFIG, own_record
from worker.services import Services
from worker.services.marking import pin_marks
from worker.services.pinned import (
    Pinned,
    PinnedEvaluation,
    PinnedGeneration,
    PinnedPromotion,
    PinnedPublication,
    PinnedTraining,
    pin_model,
)
from worker.specs import BEFORE, Evaluate, Generate, Publish, Spec, Train

MAX_PROMPTS_BYTES = 20 * 2**20

R = TypeVar("R", PinnedGeneration, PinnedPublication)


class Names:
    """The versions that names mean: each is looked up once, and means the same afterwards.

    `models` are known from the start; `used` is what the names of datasets stand for, if not for
    the newest version; `generated` is the job whose samples are published `before` the end.
    """

    def __init__(
        self,
        models: Mapping[str, tuple[Model, ModelVersion]] | None = None,
        used: Mapping[str, str] | None = None,
        *,
        generated: str | None = None,
    ) -> None:
        self.generated = generated
        self._models = dict(models or {})
        self._used = dict(used or {})
        self._datasets: dict[str, tuple[Dataset, DatasetVersion]] = {}

    def model(self, session: Session, reference: str) -> tuple[Model, ModelVersion]:
        """What `models.resolve` found first."""
        if reference not in self._models:
            self._models[reference] = models.resolve(session, reference)
        return self._models[reference]

    def dataset(self, session: Session, reference: str) -> tuple[Dataset, DatasetVersion]:
        """What `datasets.resolve` found first."""
        if reference not in self._datasets:
            meant = self._used.get(reference, reference)
            self._datasets[reference] = datasets.resolve(session, meant)
        return self._datasets[reference]


def pin(services: Services, session: Session, spec: Spec, names: Names | None = None) -> Pinned:
    """Resolve the names in a spec and check its settings. Raises `NotFound` or `Refused`."""
    names = names or Names()
    if isinstance(spec, Publish):
        spec = of_job(session, spec, names)
    pinned = pin_model(session, spec, names.model)
    if isinstance(pinned, PinnedPublication):
        return _pin_publication(services, session, pinned)
    if isinstance(pinned, PinnedTraining):
        return _pin_training_data(services, session, pinned, names)
    if isinstance(pinned, PinnedEvaluation | PinnedPromotion):
        return _pin_evaluation_data(services, session, pinned, names)
    _refuse_unfit_label(services, pinned)
    refuse_unfit_prompts(pinned.spec, pinned.family)
    if holds_conversation(pinned.spec):
        _refuse_conversation(services, pinned)
    pinned = _pin_rules(services, session, pinned)
    pinned = _pin_marks(services, session, pinned)
    if pinned.spec.dataset is None:
        pinned.params.check_images(None)
        return pinned
    return _pin_images(services, pinned, *names.dataset(session, pinned.spec.dataset))


def of_job(session: Session, spec: Publish, names: Names) -> Publish:
    """The spec with the whole id of the job that it names, and the model that made its samples.

    Raises `Refused` for a job without samples.
    """
    named = names.generated if spec.job == BEFORE else spec.job
    if named is None:
        if spec.model and spec.job is None:
            return spec
        none = "no job before it in its chain makes samples" if spec.job else "nothing is named"
        raise Refused(f"{none}, so there is nothing to publish", remedy="give a job or a model")
    job = jobs.get(session, named, kept=spec.take_down)
    if job.kind != "generate":
        raise Refused(
            f"job {job.id} is a {job.kind} job: samples of generate jobs are published, and model "
            "versions by their names"
        )
    if job.status != JobState.SUCCEEDED and not spec.take_down:
        raise Refused(
            f"job {job.id} is {job.status}: only the samples of jobs that succeeded are published",
            remedy="wait for it first; `genmill enqueue generate --publish TARGET` does both",
        )
    return spec.model_copy(update={"job": job.id, "model": str(job.spec["model"])})


def _pin_publication(
    services: Services, session: Session, pinned: PinnedPublication
) -> PinnedPublication:
    """Check the target and the rules, and count the items; what was removed is taken down only."""
    spec = pinned.spec
    targets.get(session, spec.target)
    if spec.accept is not None:
        _refuse_unfit_choice(spec, spec.accept)
        _shape(services, pinned.version)  # its worker needs it on record
        pinned = _pin_rules(services, session, pinned)
    if spec.job is None:
        return replace(pinned, items=len(pinned.version.files))
    if not spec.take_down:
        artifacts.refuse_removed(session, spec.job)
    job = jobs.get(session, spec.job, kept=spec.take_down)
    return replace(pinned, items=job.samples or 0)


def _refuse_unfit_choice(spec: Publish, rules: Acceptance) -> None:
    """Refuse rules that are for making samples, or where there is nothing to choose from."""
    if spec.job is None or spec.take_down:
        raise Refused("rules choose among the samples that are published", remedy="leave them out")
    if rules.tries is not None or not rules.near_duplicates:
        raise Refused(
            "near_duplicates and tries are for making samples",
            remedy="give them to `genmill enqueue generate --accept`",
        )


def refuse_other_family(session: Session, name: str, family: Family) -> None:
    """Raise `Refused` if model `name` is of another family, or a job will create it as such."""
    try:
        found, whose = models.get(session, name).family, f"model {name!r}"
    except NotFound:
        training = jobs.unfinished(session, kind="train", model=name)
        if not training:
            return
        found = training[0].spec["family"]
        whose = f"model {name!r}, which job {training[0].id} will create,"
    if found != family.name:
        raise Refused(
            f"{whose} is of family {found!r}, not {family.name!r}", remedy="choose another name"
        )


def _pin_training_data(
    services: Services, session: Session, pinned: PinnedTraining, names: Names
) -> PinnedTraining:
    spec, family, parent = pinned.spec, pinned.family, pinned.version
    if isinstance(spec, Train):
        if not family.trains:
            raise Refused(
                f"family {family.name!r} cannot be trained from nothing",
                remedy=f"import a model with `genmill model import DIR --name {spec.model}`, then "
                f"run `genmill enqueue finetune {spec.model} --dataset {spec.dataset}`",
            )
        refuse_other_family(session, spec.model, family)
    dataset, data = names.dataset(session, spec.dataset)
    named = spec.model_copy(update={"dataset": f"{dataset.name}:{data.number}"})
    refuse_unfit_data(family, data, named.dataset)
    labels = data.summary.get("labels") or []
    if parent and labels and family.takes_labels and _is_conditional(family, parent):
        # a network cannot learn labels that it was not built for
        known = _shape(services, parent)["labels"]
        if strange := sorted(set(labels) - set(known)):
            raise Refused(
                f"{named.dataset} has labels {strange[:10]} that {spec.model} does not know",
                remedy=f"known: {', '.join(known) or 'none'}",
            )
    return replace(pinned, spec=named)


def _is_conditional(family: Family, version: ModelVersion) -> bool:
    settings = family.training_settings(version.params, version.format, what="the parent")
    return bool(settings.get("conditional", True))


def _pin_evaluation_data(
    services: Services, session: Session, pinned: PinnedEvaluation | PinnedPromotion, names: Names
) -> PinnedEvaluation | PinnedPromotion:
    """Pin the data, and the version to compare with."""
    spec, update = pinned.spec, dict[str, str]()
    if spec.dataset is not None:
        dataset, data = names.dataset(session, spec.dataset)
        update["dataset"] = f"{dataset.name}:{data.number}"
        refuse_unfit_data(pinned.family, data, update["dataset"])
        if isinstance(pinned, PinnedEvaluation):
            _refuse_unfit_protocol(services, pinned, data, update["dataset"])
    if isinstance(spec, Evaluate) and spec.against is not None:
        model, version = names.model(session, spec.against)
        if model.family != pinned.family.name:
            raise Refused(
                f"{spec.against} is of family {model.family!r}, and {spec.model} of "
                f"{pinned.family.name!r}: they cannot be compared"
            )
        update["against"] = f"{model.name}:{version.number}"
    named: Any = spec.model_copy(update=update)
    return replace(pinned, spec=named)


def _refuse_unfit_protocol(
    services: Services, pinned: PinnedEvaluation, data: DatasetVersion, reference: str
) -> None:
    """Refuse a split with too few items, and items of another form than the version's samples."""
    spec = pinned.spec
    refuse_small_split(spec, data, reference)
    pinned.params.check_images(None)
    found, shape = data.summary["shape"], _shape(services, pinned.version)
    for key in ("size", "channels", "sample_rate") if find_medium(data.kind).pictured else ():
        if found.get(key) != shape.get(key):
            raise Refused(
                f"the items of {reference} have {key} {found.get(key)}, the samples of "
                f"{spec.model} {shape.get(key)}",
                remedy="add the items again as a dataset that fits",
            )


def refuse_small_split(spec: Evaluate, data: DatasetVersion, reference: str) -> None:
    """Refuse an evaluation for which a split has too few items, or whose items need no judge."""
    if spec.judge is not None and not find_medium(data.kind).pictured:
        raise Refused(f"no judge looks at {data.kind} samples", remedy="leave the judge out")
    held_out = data.summary["counts"][spec.split]
    other = "validation" if spec.split == "test" else "test"
    if not held_out:
        raise Refused(f"split {spec.split} of {reference} is empty", remedy=f"use --split {other}")
    if find_medium(data.kind).pictured and held_out < (spec.count or 1):
        raise Refused(
            f"split {spec.split} of {reference} has {held_out:,} items, but {spec.count:,} samples "
            "are asked for: only equal numbers can be compared",
            remedy=f"use --count {held_out} or fewer",
        )


def refuse_unfit_data(family: Family, data: DatasetVersion, reference: str) -> None:
    """Refuse data of another medium, or without the captions that the family needs."""
    if data.kind != family.media:
        raise Refused(
            f"family {family.name!r} trains on {family.media} datasets, but {reference} is of kind "
            f"{data.kind}"
        )
    if family.needs_captions and not (data.summary.get("captions") or data.summary.get("labels")):
        raise Refused(
            f"family {family.name!r} trains on captions, but {reference} has neither captions nor "
            "labels",
            remedy='add it again with a metadata.jsonl of lines {"file_name": ..., "text": ...} '
            "beside the images, or with the images in folders named after what they show",
        )


def _refuse_unfit_label(services: Services, pinned: PinnedGeneration) -> None:
    spec = pinned.spec
    if spec.label is not None:
        labels = _shape(services, pinned.version)["labels"]
        if not labels:
            raise Refused(
                f"model {spec.model} was trained without labels", remedy="leave the label out"
            )
        if spec.label not in labels:
            raise Refused.unknown("label", spec.label, labels, of=f"model {spec.model}")


def _pin_rules(services: Services, session: Session, pinned: R) -> R:
    """Name the judge and the training data that an order's rules need."""
    rules = pinned.spec.accept
    if rules is None:
        return pinned
    medium, trained_on = find_medium(pinned.family.media), pinned.version.dataset_version_id
    _refuse_unfit_rules(rules, medium)
    if not rules.looks:
        return pinned
    if trained_on is None:
        raise Refused(
            f"the data that {pinned.spec.model} was trained on are not on record, so its samples "
            "cannot be compared with them",
            remedy="leave confidence, agreement, near_duplicates and copies_of_training out",
        )
    data = datasets.version(session, trained_on)
    name = lineage.dataset_reference(session, data)
    added = {"dataset": name}
    if medium.pictured:
        judge = evaluations.own_judge(session, trained_on)
        if judge is None:
            raise Refused(
                f"no judge has been trained on {name} yet, and the rules need one",
                remedy=f"run `genmill enqueue evaluate {pinned.spec.model} --dataset {name}` first",
            )
        added["judge"] = judge.sha256
        if not data.summary.get("labels") and (rules.agreement or rules.confidence is not None):
            raise Refused(
                f"{name} has no labels, so no judge can tell classes apart",
                remedy="leave confidence and agreement out",
            )
        if rules.agreement and not _shape(services, pinned.version)["labels"]:
            raise Refused(
                f"samples of {pinned.spec.model} are asked for no class that a judge could see",
                remedy="write confidence>=P in place of agreement=yes: of the likeliest class",
            )
    named: Any = pinned.spec.model_copy(update={"accept": rules.model_copy(update=added)})
    return replace(pinned, spec=named)


def _pin_marks(services: Services, session: Session, pinned: PinnedGeneration) -> PinnedGeneration:
    """Complete the profile of marks, which the job, its model or the installation names."""
    marks = pin_marks(services, session, pinned.spec, find_medium(pinned.family.media))
    if marks is None and pinned.spec.marks is None:
        return pinned
    return replace(pinned, spec=pinned.spec.model_copy(update={"marks": marks}))


def _refuse_unfit_rules(rules: Acceptance, medium: Medium) -> None:
    """Refuse rules that samples of a medium cannot be judged by."""
    if not rules.looks and rules.min_length is None and rules.max_length is None:
        raise Refused("these rules reject nothing", remedy=f"write some of {WRITTEN}")
    strange = ("max_length", "min_length") if medium.pictured else ("agreement", "confidence")
    found = [name for name in strange if getattr(rules, name) not in {None, False}]
    if found:
        raise Refused(f"{found[0]} is no rule for {medium.name} samples", remedy=f"write {WRITTEN}")


def refuse_unfit_prompts(spec: Generate, family: Family) -> None:
    """Refuse prompts for a family that takes none, and too many bytes of them."""
    if spec.prompts and not family.takes_prompts:
        raise Refused(f"family {family.name!r} takes no prompts")
    texts = (each.prompt for each in spec.prompts)
    size = sum(len((text if isinstance(text, str) else text.json).encode()) for text in texts)
    if size > MAX_PROMPTS_BYTES:
        raise Refused(
            f"the prompts have {size:,} bytes: a job takes at most {MAX_PROMPTS_BYTES:,}",
            remedy="split them into several jobs",
        )


def holds_conversation(spec: Generate) -> bool:
    """Whether any prompt consists of messages."""
    return any(isinstance(each.prompt, Conversation) for each in spec.prompts)


def _refuse_conversation(services: Services, pinned: PinnedGeneration) -> None:
    """Refuse messages where the family or the model has no chat template for them."""
    layout, model, files = pinned.family.layout(), pinned.spec.model, pinned.version.files
    if layout is None or not layout.has_chat_template(
        files, lambda name: _read_json(services, files[name]["key"])
    ):
        raise Refused(
            f"model {model} has no chat template, so it takes no conversations",
            remedy="give prompts of plain text, or take a model that was imported with its "
            "chat template",
        )
    pinned.params.check_conversations()


def _read_json(services: Services, key: str) -> dict[str, Any]:
    with services.store.open(key) as file:
        found: dict[str, Any] = json.load(file)
    return found


def _pin_images(
    services: Services, pinned: PinnedGeneration, dataset: Dataset, images: DatasetVersion
) -> PinnedGeneration:
    """Pin the version of the images; refuse those that the family or the model does not take."""
    spec, family = pinned.spec, pinned.family
    name = f"{dataset.name}:{images.number}"
    if not family.takes_images:
        raise Refused(f"family {family.name!r} takes no images", remedy="leave the dataset out")
    if images.kind != family.media:
        raise Refused(
            f"family {family.name!r} takes {family.media} datasets; {name} is of kind {images.kind}"
        )
    found, shape = images.summary["shape"], _shape(services, pinned.version)
    for key in ("size", "channels"):
        if found[key] != shape[key]:
            raise Refused(
                f"the images of {name} have {key} {found[key]}, those of {spec.model} {shape[key]}",
                remedy="add them again as a dataset that fits",
            )
    known, labels = shape["labels"], images.summary["labels"]
    # a conditional model needs the label of each image
    if spec.label is None and known and not (labels and set(labels) <= set(known)):
        strange = f"labels {sorted(set(labels) - set(known))[:10]} that it does not know"
        raise Refused(
            f"{spec.model} was trained with labels, and {name} has {strange if labels else 'none'}",
            remedy=f"give the label that its images show; known: {', '.join(known)}",
        )
    pinned.params.check_images(found["size"])
    return replace(pinned, spec=spec.model_copy(update={"dataset": name}))


def _shape(services: Services, version: ModelVersion) -> dict[str, Any]:
    """The shape of a version's samples: labels, images' size, channels.

    An earlier Genmill kept it in the version's `config.json` alone: then it is read there, once.
    """
    if version.shape is not None:
        return version.shape
    config = _read_json(services, version.files[CONFIG]["key"])
    shape: dict[str, Any] = own_record(config)["shape"]
    services.database.transact(partial(models.set_shape, version_id=version.id, shape=shape))
    return shape
