"""Importing a folder as a new version of a model."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import models
from db.path_errors import reading
from db.tables import Model, ModelVersion
from scheduler.models.card import read_card
from scheduler.models.folder_check import ModelFolder, check_folder, check_sums
from scheduler.models.other_files import refuse_other_than_folder
from scheduler.models.weights_check import unwrapped
from scheduler.submission.checks import refuse_other_family
from worker.failpoints import reach
from worker.files import digest_of, weights_digest
from worker.networks.inspection import Inspection
from worker.networks.version_folder import CONFIG, WEIGHTS_SUFFIX, made_by, own_record
from worker.services import Services
from worker.services.shared_objects import store_and_record
from worker.specs import check_name

PREFIX = "models/blobs"

Inspect = Callable[[Path], Inspection]  # tries the model in a version's folder


def import_model(
    services: Services, folder: Path, name: str, *, inspect: Inspect, unwrap: bool = False
) -> tuple[Model, ModelVersion]:
    """Store the model in `folder` as a new version of model `name`, if `inspect` accepts it.

    With `unwrap`, the names of wrappers such as torch.compile's are taken off its tensors. Raises
    `BadInput` for a folder that is not a model's or has changed since it was exported, `NotFound`
    for an unknown family, and `Refused` where `name` is, or will be, a model of another family.
    """
    check_name("model", name)
    with reading(folder):
        if not folder.is_dir():
            refuse_other_than_folder(folder)
        if unwrap:
            check_sums(folder)
        with unwrapped(folder) if unwrap else nullcontext(folder) as plain:
            return _import(services, check_folder(plain), name, inspect)


def _import(
    services: Services, found: ModelFolder, name: str, inspect: Inspect
) -> tuple[Model, ModelVersion]:
    with services.database.read() as session:  # before the work
        refuse_other_family(session, name, found.family)
    digests = {each: digest_of(found.folder / each) for each in found.names}
    with found.as_version(digests) as version:
        inspected = inspect(version)
    card = read_card(found.folder)
    config, params = found.version_config(digests, inspected)
    files: dict[str, dict[str, Any]] = {}

    def store() -> list[str]:
        for each in found.names:
            files[each] = vars(services.store.put(PREFIX, found.folder / each))
        files[CONFIG] = vars(services.store.put_bytes(PREFIX, config.encode()))
        reach(services.settings, "model_stored")
        return [file["key"] for file in files.values()]

    own = own_record(json.loads(config))
    weights = {each: sha256 for each, sha256 in digests.items() if each.endswith(WEIGHTS_SUFFIX)}

    def record(session: Session) -> tuple[Model, ModelVersion]:
        refuse_other_family(session, name, found.family)
        added = models.add_version(
            session,
            name=name,
            family=found.family.name,
            params=params.model_dump(mode="json"),
            format=found.family.format,
            files=files,
            weights_sha256=weights_digest(weights),
            metrics=dict(inspected.metrics),
            shape=own["shape"],
            made_by=made_by(own),
        )
        added.card = card
        return models.resolve(session, f"{name}:{added.number}")

    return store_and_record(services, store, record)
