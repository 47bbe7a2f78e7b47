"""Adding a dataset: its files are read and checked on this machine, then stored."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import datasets
from db.tables import Dataset, DatasetVersion
from worker.cleaning.recipe import Recipe
from worker.cleaning.steps import Progress
from worker.data.dataset import LocalDataset
from worker.data.versions import publish, summary
from worker.failpoints import reach
from worker.ingest.ingest import NOTHING, PLAIN, About, ingest
from worker.services import Services
from worker.source_files.members import Reject
from worker.source_files.source import bytes_at
from worker.specs import check_name


@dataclass(frozen=True)
class Added:
    """A dataset version, the first of the files that were rejected, and how labels were read.

    `source_bytes` is the size of the files that it was made from.
    """

    dataset: Dataset
    version: DatasetVersion
    rejects: list[Reject]
    reading: dict[str, str]
    source_bytes: int


@dataclass(frozen=True)
class Parent:
    """The version that another is an update of: its reference and its content."""

    reference: str
    content: LocalDataset


def add_dataset(
    services: Services,
    name: str,
    path: Path,
    recipe: Recipe = PLAIN,
    about: About = NOTHING,
    *,
    parent: Parent | None = None,
    progress: Progress | None = None,
) -> Added:
    """Read `path` into a new version of dataset `name`; the same content again is the same version.

    Raises `Refused` for a bad name, `BadInput` if nothing usable is found.
    """
    check_name("dataset", name)
    services.settings.home.mkdir(parents=True, exist_ok=True)
    with services.database.read() as session:
        withdrawn = datasets.withdrawn(session)
    with tempfile.TemporaryDirectory(dir=services.settings.home, prefix="intake-") as scratch:
        found = ingest(
            path.absolute(),
            Path(scratch),
            recipe,
            about=about,
            parent=parent.content if parent else None,
            progress=progress,
            withdrawn=withdrawn,
        )
        manifest = publish(services.store, Path(scratch))
    reach(services.settings, "dataset_stored")
    kept: dict[str, Any] = {"parent": parent.reference if parent else None}

    def work(session: Session) -> tuple[Dataset, DatasetVersion]:
        version = datasets.add_version(
            session,
            name=name,
            kind=found.manifest["kind"],
            manifest_key=manifest.key,
            manifest_sha256=manifest.sha256,
            summary=summary(found.manifest) | kept,
        )
        return datasets.resolve(session, f"{name}:{version.number}")

    made = services.database.transact(work)
    return Added(*made, found.rejects, found.reading, bytes_at(path))
