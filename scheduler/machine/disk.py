"""`genmill doctor --disk`: what takes the space, in the store and on this machine."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import artifacts, disk_use
from db.driver_errors import location
from db.errors import GenmillError
from scheduler.removal.objects import used_by
from worker.cache import Cache
from worker.services import Services
from worker.settings import Settings

FOLDERS = ("jobs", "datasets", "models", "packs", "prompts")  # of the store
UNNAMED = "not on record"
GARBAGE = "garbage"  # of jobs on record, such as checkpoints that were pruned
# who frees what, and how soon
COLLECTS = "a scheduler, within {} (`genmill up`, or `genmill scheduler`)"
PRUNES = "genmill db prune --kind checkpoints --older-than 1s"
CLEARS = "genmill cache clear"
LARGEST = 15
CACHE = "cache of "


@dataclass
class Use:
    """Bytes and objects, by what they are, and by what they belong to."""

    size_bytes: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    things: Counter[tuple[str, str]] = field(default_factory=Counter)  # kind and name -> bytes

    def add(self, what: str, size: int, thing: tuple[str, str] | None = None) -> None:
        """Count an object."""
        self.size_bytes[what] += size
        self.objects[what] += 1
        if thing is not None:
            self.things[thing] += size


def measure(services: Services) -> dict[str, Any]:
    """Totals by what takes the space, what takes most of it, and what could be freed at once."""
    use = Use()
    with services.database.read() as session:
        owners = disk_use.owners(session)
        owners |= _dataset_objects(services, session)
        for job_id, size in disk_use.packed_by_job(session).items():
            use.things["job", job_id] += size  # their packs are counted as such
        database_bytes = disk_use.database_bytes(session)
        prunable = disk_use.prunable_checkpoint_bytes(session)
        uncollected = disk_use.uncollected_jobs(session)
    _measure_store(services, use, owners, uncollected)
    place = str(services.store)
    totals = [
        {"what": what, "where": place, "size_bytes": size, "objects": use.objects[what]}
        for what, size in use.size_bytes.most_common()
    ]
    where = location(services.database.url)
    database = {"what": "database", "where": where, "objects": None}
    local = list(_local(services.settings))
    totals += [*local, database | {"size_bytes": database_bytes}]
    largest = [
        {"kind": kind, "name": name, "size_bytes": size}
        for (kind, name), size in use.things.most_common(LARGEST)
    ]
    cached = sum(row["size_bytes"] for row in local if row["what"].startswith(CACHE))
    could_be_freed = [
        {"what": what, "size_bytes": size, "by": by}
        for what, size, by in (
            ("checkpoints of ended jobs", prunable, PRUNES),
            (GARBAGE, use.size_bytes[GARBAGE], COLLECTS.format("an hour after the job's end")),
            (UNNAMED, use.size_bytes[UNNAMED], COLLECTS.format("a day")),
            ("caches of this machine", cached, CLEARS),
        )
        if size
    ]
    return {"totals": totals, "largest": largest, "could_be_freed": could_be_freed}


def _measure_store(
    services: Services, use: Use, owners: disk_use.Owners, uncollected: Collection[str]
) -> None:
    of_jobs: dict[str, list[int]] = {}  # by job: sizes of objects that no other thing names
    referenced = lru_cache(maxsize=1)(partial(_referenced, services))  # a job's keys come together
    for folder in FOLDERS:
        for key, size in services.store.sizes(folder):
            if key in owners:
                what, kind, name = owners[key]
                use.add(what, size, (kind, name))
            elif folder != "jobs":
                use.add(folder if folder in ("packs", "prompts") else UNNAMED, size)
            elif (job_id := key.split("/")[1]) in uncollected and key not in referenced(job_id):
                use.add(GARBAGE, size, ("job", job_id))
            else:
                of_jobs.setdefault(job_id, []).append(size)
    _count_jobs(services, use, of_jobs)


def _count_jobs(services: Services, use: Use, of_jobs: Mapping[str, Sequence[int]]) -> None:
    with services.database.read() as session:
        known = disk_use.known_jobs(session, list(of_jobs))
    for job_id, sizes in of_jobs.items():
        for size in sizes:
            if job_id in known:
                use.add("jobs", size, ("job", job_id))
            else:
                use.add(UNNAMED, size, (UNNAMED, f"jobs/{job_id}"))


def _referenced(services: Services, job_id: str) -> set[str]:
    with services.database.read() as session:
        return artifacts.referenced_keys(session, job_id)


def _dataset_objects(services: Services, session: Session) -> disk_use.Owners:
    """The objects of dataset versions, by key; those whose manifest is lost are left out."""
    found: disk_use.Owners = {}
    for name, manifest in disk_use.manifests(session):
        with suppress(GenmillError):
            owner = ("datasets", "dataset", name)
            found |= {key: owner for key in used_by(services, manifest) if key not in found}
    return found


def _local(settings: Settings) -> Iterator[dict[str, Any]]:
    """What lies in this machine's home, beside the store and the database."""
    cache = Cache(settings.cache, limit_bytes=settings.cache_bytes).sizes()
    for kind in sorted({folder.parent for folder in cache}):
        inside = [files for folder, files in cache.items() if folder.parent == kind]
        unique = {inode: size for files in inside for inode, size in files.items()}
        yield _row(f"{CACHE}{kind.name}", kind, sum(unique.values()), len(inside))
    for name in ("logs", "work"):
        folder = settings.home.absolute() / name
        sizes = list(_file_sizes(folder))
        if sizes:
            yield _row(name, folder, sum(sizes), len(sizes))


def _row(what: str, where: Path, size: int, objects: int) -> dict[str, Any]:
    return {"what": what, "where": str(where), "size_bytes": size, "objects": objects}


def _file_sizes(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                yield Path(parent, name).stat().st_size
