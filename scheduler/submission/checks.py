"""Checks of a request before it is stored: do data, labels, prompts and rules fit the model?

Each function whose name begins with `refuse` raises `Refused`, or returns nothing.
"""

import json
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from db import jobs, models
from db.errors import NotFound, Refused
from db.tables import DatasetVersion, ModelVersion
from worker.acceptance import WRITTEN, Acceptance
from worker.conversations import Conversation
from worker.marks.profiles import complete
from worker.media import find_medium
from worker.media.base import Medium
from worker.networks.family import Family
from worker.networks.version_folder import CONFIG, own_record
from worker.services import Services
from worker.services.pinned import PinnedEvaluation, PinnedGeneration, PinnedTraining
from worker.specs import Evaluate, Generate, Publish

MAX_PROMPTS_BYTES = 20 * 2**20


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


def refuse_unfit_protocol(
    services: Services, pinned: PinnedEvaluation, data: DatasetVersion, reference: str
) -> None:
    """Refuse a split with too few items, and items of another form than the version's samples."""
    spec = pinned.spec
    refuse_small_split(spec, data, reference)
    pinned.params.check_images(None)
    found, shape = data.summary["shape"], shape_of(services, pinned.version)
    for key in ("size", "channels", "sample_rate") if find_medium(data.kind).pictured else ():
        if found.get(key) != shape.get(key):
            raise Refused(
                f"the items of {reference} have {key} {found.get(key)}, the samples of "
                f"{spec.model} {shape.get(key)}",
                remedy="add the items again as a dataset that fits",
            )


def refuse_unfit_label(services: Services, pinned: PinnedGeneration) -> None:
    """Refuse a label that the model was not trained with."""
    spec = pinned.spec
    if spec.label is None:
        return
    labels = shape_of(services, pinned.version)["labels"]
    if not labels:
        raise Refused(
            f"model {spec.model} was trained without labels", remedy="leave the label out"
        )
    if spec.label not in labels:
        raise Refused.unknown("label", spec.label, labels, of=f"model {spec.model}")


def refuse_new_labels(
    services: Services, pinned: PinnedTraining, data: DatasetVersion, reference: str
) -> None:
    """Refuse labels that the parent does not know: a network cannot learn others."""
    family, parent, labels = pinned.family, pinned.version, data.summary.get("labels") or []
    if parent is None or not (labels and family.takes_labels and _is_conditional(family, parent)):
        return
    known = shape_of(services, parent)["labels"]
    if strange := sorted(set(labels) - set(known)):
        raise Refused(
            f"{reference} has labels {strange[:10]} that {pinned.spec.model} does not know",
            remedy=f"known: {', '.join(known) or 'none'}",
        )


def _is_conditional(family: Family, version: ModelVersion) -> bool:
    settings = family.training_settings(version.params, version.format, what="the parent")
    return bool(settings.get("conditional", True))


def refuse_unfit_choice(spec: Publish, rules: Acceptance) -> None:
    """Refuse rules that are for making samples, or where there is nothing to choose from."""
    if spec.job is None or spec.take_down:
        raise Refused("rules choose among the samples that are published", remedy="leave them out")
    if rules.tries is not None or not rules.near_duplicates:
        raise Refused(
            "near_duplicates and tries are for making samples",
            remedy="give them to `genmill enqueue generate --accept`",
        )


def refuse_unfit_rules(rules: Acceptance, medium: Medium) -> None:
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


def refuse_unfit_marks(spec: Generate, family: Family) -> None:
    """Refuse marks with settings that the family's samples cannot have."""
    if spec.marks is not None:
        complete(spec.marks, find_medium(family.media))


def holds_conversation(spec: Generate) -> bool:
    """Whether any prompt consists of messages."""
    return any(isinstance(each.prompt, Conversation) for each in spec.prompts)


def refuse_conversation(services: Services, pinned: PinnedGeneration) -> None:
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


def refuse_unfit_images(
    services: Services, pinned: PinnedGeneration, images: DatasetVersion, name: str
) -> None:
    """Refuse images that the family or the model does not take."""
    spec, family = pinned.spec, pinned.family
    if not family.takes_images:
        raise Refused(f"family {family.name!r} takes no images", remedy="leave the dataset out")
    if images.kind != family.media:
        raise Refused(
            f"family {family.name!r} takes {family.media} datasets; {name} is of kind {images.kind}"
        )
    found, shape = images.summary["shape"], shape_of(services, pinned.version)
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


def shape_of(services: Services, version: ModelVersion) -> dict[str, Any]:
    """The shape of a version's samples: labels, images' size, channels.

    An earlier Genmill kept it in the version's `config.json` alone: then it is read there, once.
    """
    if version.shape is not None:
        return version.shape
    config = _read_json(services, version.files[CONFIG]["key"])
    shape: dict[str, Any] = own_record(config)["shape"]
    services.database.transact(partial(models.set_shape, version_id=version.id, shape=shape))
    return shape


def _read_json(services: Services, key: str) -> dict[str, Any]:
    with services.store.open(key) as file:
        found: dict[str, Any] = json.load(file)
    return found
