"""Adding a dataset: its files are read and checked on this machine, then stored."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from db import datasets
from db.tables import Dataset, DatasetVersion
from worker.data.versions import publish, summary
from worker.ingest.ingest import ingest
from worker.services import Services
from worker.source_files.members import Reject
from worker.specs import check_name


@dataclass(frozen=True)
class Added:
    """A dataset version, the first of the files that were rejected, and how labels were read."""

    dataset: Dataset
    version: DatasetVersion
    rejects: list[Reject]
    reading: dict[str, str]


def add_dataset(
    services: Services,
    name: str,
    path: Path,
    *,
    kind: str | None = None,
    size: int | None = None,
    mode: str | None = None,
    resample: bool | None = None,
    split: Sequence[int] = (90, 5, 5),
) -> Added:
    """Read `path` into a new version of dataset `name`; the same content again is the same version.

    Raises `Refused` for a bad name, `BadInput` if nothing usable is found.
    """
    check_name("dataset", name)
    services.settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=services.settings.home, prefix="intake-") as scratch:
        found = ingest(
            path.absolute(),
            Path(scratch),
            kind=kind,
            size=size,
            mode=mode,
            resample=resample,
            split=split,
        )
        manifest = publish(services.store, Path(scratch))

    def work(session: Session) -> tuple[Dataset, DatasetVersion]:
        version = datasets.add_version(
            session,
            name=name,
            kind=found.manifest["kind"],
            manifest_key=manifest.key,
            manifest_sha256=manifest.sha256,
            summary=summary(found.manifest),
        )
        return datasets.resolve(session, f"{name}:{version.number}")

    return Added(*services.database.transact(work), found.rejects, found.reading)
