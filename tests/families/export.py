"""A version exported from one home and imported into another, as `genmill model` does it."""

import shutil
from contextlib import closing
from pathlib import Path

from db import models
from db.tables import ModelVersion
from scheduler.models.export_model import export_model
from scheduler.models.import_model import import_model
from worker.engine.inspection import inspect
from worker.files import weights_digest
from worker.networks.family import Family
from worker.networks.version_folder import WEIGHTS_SUFFIX, read_record
from worker.services import Services
from worker.settings import Settings

NAME = "model"


def export_and_import(
    version: Path, folder: Path, template: Path, *, family: Family, merge: bool = False
) -> Path:
    """Record, export and import a version's folder; return its files in the other home."""
    with closing(open_home(folder / "here", template)) as here:
        record(here, version, family=family)
        export_model(here, NAME, folder / "exported", merge=merge)
    with closing(open_home(folder / "there", template)) as there:
        _, imported = import_model(there, folder / "exported", NAME, inspect=inspect)
        return fetch(there, imported, folder / "imported")


def open_home(folder: Path, template: Path) -> Services:
    folder.mkdir(parents=True)
    shutil.copy(template, folder / "genmill.db")
    return Services(Settings(home=folder))


def record(services: Services, version: Path, *, family: Family) -> None:
    """Store a version's files, as a train job does."""
    files = {path.name: vars(services.store.put("jobs", path)) for path in version.iterdir()}
    weights = {n: file["sha256"] for n, file in files.items() if n.endswith(WEIGHTS_SUFFIX)}
    with services.database.write() as session:
        models.add_version(
            session,
            name=NAME,
            family=family.name,
            params=read_record(version)["params"],
            files=files,
            weights_sha256=weights_digest(weights),
            metrics={"loss": 1.5},
        )


def fetch(services: Services, version: ModelVersion, folder: Path) -> Path:
    folder.mkdir()
    for name, file in version.files.items():
        services.store.fetch(file["key"], folder / name, sha256=file["sha256"])
    return folder
