"""Withdrawing items: what holds them is barred, and what was or would be made from it is named."""

import os
import re
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy.orm import Session

from db import datasets
from db.errors import NotFound, Refused
from db.tables import DatasetVersion
from scheduler.datasets.content import content_of
from scheduler.datasets.update import recipe_of
from scheduler.removal.schedules import Affected, affected_by, pause_trainings
from worker.data.dataset import LocalDataset
from worker.data.split import hash_of
from worker.ingest.ingest import ingest
from worker.media import find_medium
from worker.services import Services

DIGEST = re.compile(r"[0-9a-f]{16}")
SHOWN = 5


@dataclass(frozen=True)
class Withdrawn:
    """The items' digests, the versions that hold any, and those that could not be looked at.

    Also the schedules that use such a version, or a model that learnt from one.
    """

    digests: list[str]
    versions: list[DatasetVersion]
    unread: list[DatasetVersion]
    schedules: list[Affected]


def withdraw(
    services: Services,
    name: str,
    items: Sequence[str],
    *,
    who: str,
    reason: str | None,
    dry_run: bool,
) -> Withdrawn:
    """Bar items of a dataset, given by digest or as files, and every version that holds one.

    Schedules that would train on such a version, or on a model that did, are paused. With
    `dry_run`, only find them all. What was withdrawn before is found again. Raises `NotFound` if no
    version holds an item, and `Refused` if unfinished jobs use a version.
    """
    with services.database.read() as session:
        dataset, newest = datasets.resolve_hidden(session, name)
        versions = datasets.all_versions(session, dataset)
    digests = _digests_of(services, newest, items)
    with services.database.read() as session:
        known = datasets.withdrawn(session, dataset)
        hidden = datasets.withdrawn_versions(session, dataset, digests)
    found = _look_into(services, versions, {int(each, 16) for each in digests}, hidden)
    missing = [each for each in digests if int(each, 16) not in known | found.digests]
    if missing:
        some = ", ".join(sorted(missing)[:SHOWN])
        raise NotFound(
            f"no version of dataset {name!r} holds {some}",
            remedy="digests are listed by `genmill dataset diff --json`; a file must have the "
            "content that was added",
        )

    def work(session: Session) -> None:
        named = {"digests": digests, "versions": [each.id for each in found.holding]}
        datasets.withdraw(session, dataset=dataset, who=who, reason=reason, **named)
        pause_trainings(session, found.holding, who)

    if not dry_run:
        services.database.transact(work)
    with services.database.read() as session:
        affected = affected_by(session, found.holding)
    return Withdrawn(digests, found.holding, found.unread, affected)


class _Found(NamedTuple):
    digests: set[int]  # of the wanted items that any version holds
    holding: list[DatasetVersion]
    unread: list[DatasetVersion]


def _look_into(
    services: Services,
    versions: Sequence[DatasetVersion],
    wanted: set[int],
    hidden: Collection[int],
) -> _Found:
    """Which versions hold wanted items; `hidden` are numbers of those that are known to."""
    found = _Found(set(), [], [])
    for version in versions:
        try:
            own = wanted & _content_digests(content_of(services, version))
        except NotFound:  # its objects were collected after it had been removed
            (found.holding if version.number in hidden else found.unread).append(version)
            continue
        found.digests.update(own)
        if own:
            found.holding.append(version)
    return found


def _digests_of(services: Services, newest: DatasetVersion, items: Sequence[str]) -> list[str]:
    """The digests of items; those of files as they would be if they were added to the newest."""
    found: list[str] = []
    for item in items:
        if DIGEST.fullmatch(item):
            found.append(item)
            continue
        if not os.path.lexists(item):
            raise Refused(
                f"{item!r} is neither the digest of an item nor a file",
                remedy="give 16 hexadecimal digits, as `genmill dataset diff --json` lists them, "
                "or the file itself",
            )
        try:
            recipe = recipe_of(content_of(services, newest))
        except NotFound as gone:
            raise Refused(
                f"the content of dataset version {newest.number} is gone, so {item!r} cannot be "
                "compared with it",
                remedy="give the digests, as the withdrawal before or `--json` has told them",
            ) from gone
        with tempfile.TemporaryDirectory(dir=services.settings.home, prefix="intake-") as scratch:
            ingest(Path(item).absolute(), Path(scratch) / "items", recipe)
            own = _content_digests(LocalDataset(Path(scratch) / "items"))
        found += [f"{number:016x}" for number in sorted(own)]
    return list(dict.fromkeys(found))


def _content_digests(content: LocalDataset) -> set[int]:
    medium = find_medium(content.manifest["kind"])
    numbers: npt.NDArray[np.uint64] = np.fromiter(map(hash_of, medium.contents(content)), np.uint64)
    return set(numbers.tolist())
