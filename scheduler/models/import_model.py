"""Importing a folder as a new version of a model."""

import json
from pathlib import Path

from sqlalchemy.orm import Session

from db import models
from db.tables import Model, ModelVersion
from scheduler.models.folder_check import check_folder
from scheduler.submission.pinning import refuse_other_family
from worker.files import weights_digest
from worker.networks.version_folder import CONFIG, WEIGHTS_SUFFIX, own_record
from worker.services import Services
from worker.specs import check_name

PREFIX = "models/blobs"


def import_model(services: Services, folder: Path, name: str) -> tuple[Model, ModelVersion]:
    """Store the model in `folder` as a new version of model `name`.

    Raises `BadInput` for a folder that is not a model's or has changed since it was exported,
    `NotFound` for an unknown family, and `Refused` where `name` is, or will be, a model of another
    family.
    """
    check_name("model", name)
    found = check_folder(folder)
    files = {each: vars(services.store.put(PREFIX, folder / each)) for each in found.names}
    digests = {each: str(blob["sha256"]) for each, blob in files.items()}
    config, params = found.version_config(digests)
    files[CONFIG] = vars(services.store.put_bytes(PREFIX, config.encode()))
    weights = {each: sha256 for each, sha256 in digests.items() if each.endswith(WEIGHTS_SUFFIX)}

    def work(session: Session) -> tuple[Model, ModelVersion]:
        refuse_other_family(session, name, found.family)
        added = models.add_version(
            session,
            name=name,
            family=found.family.name,
            params=params.model_dump(mode="json"),
            files=files,
            weights_sha256=weights_digest(weights),
            metrics={},
            shape=own_record(json.loads(config))["shape"],
        )
        return models.resolve(session, f"{name}:{added.number}")

    return services.database.transact(work)
