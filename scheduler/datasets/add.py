"""Adding a dataset: its files are read and checked on this machine, then stored."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import datasets
from db.errors import Refused
from db.tables import Dataset, DatasetVersion
from worker.cleaning.recipe import Recipe
from worker.cleaning.steps import Progress
from worker.data.dataset import LocalDataset
from worker.data.versions import PREFIX, publish, summary
from worker.failpoints import reach
from worker.files import digest_of
from worker.ingest.ingest import NOTHING, PLAIN, About, ingest
from worker.services import Services
from worker.services.shared_objects import store_and_record
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

    Raises `Refused` for a bad name and if items are withdrawn meanwhile, `BadInput` if nothing
    usable is found.
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
        added = _record(services, name, Path(scratch), found.manifest, parent, withdrawn)
    return Added(*added, found.rejects, found.reading, bytes_at(path))


def _record(
    services: Services,
    name: str,
    folder: Path,
    about: dict[str, Any],
    parent: Parent | None,
    left_out: frozenset[int],
) -> tuple[Dataset, DatasetVersion]:
    """Store what was ingested into a folder, and record it as a version.

    `left_out` are the withdrawn items that it was ingested without.
    """
    sha256 = digest_of(folder / "manifest.json")
    key = f"{PREFIX}/{sha256}"
    kept: dict[str, Any] = {"parent": parent.reference if parent else None}

    def store() -> list[str]:
        publish(services.store, folder)
        reach(services.settings, "dataset_stored")
        return [key, *(f"{PREFIX}/{entry['sha256']}" for entry in about["objects"])]

    def record(session: Session) -> tuple[Dataset, DatasetVersion]:
        version = datasets.add_version(
            session,
            name=name,
            kind=about["kind"],
            manifest_key=key,
            manifest_sha256=sha256,
            summary=summary(about) | kept,
        )
        # after the dataset was locked
        if datasets.withdrawn(session) - left_out:
            raise Refused(
                f"items were withdrawn while {name!r} was read", remedy="run the command again"
            )
        return datasets.resolve(session, f"{name}:{version.number}")

    return store_and_record(services, store, record)
