"""Withdrawing items: what holds them is barred, and what was made from it is named."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db import datasets
from db.errors import NotFound, Refused
from db.tables import DatasetVersion
from scheduler.datasets.content import content_of
from scheduler.datasets.update import recipe_of
from worker.data.dataset import LocalDataset
from worker.data.split import hash_of
from worker.ingest.ingest import ingest
from worker.media import find_medium
from worker.services import Services

DIGEST = re.compile(r"[0-9a-f]{16}")
SHOWN = 5


@dataclass(frozen=True)
class Withdrawn:
    """The items' digests, the versions that hold any, and those that could not be looked at."""

    digests: list[str]
    versions: list[DatasetVersion]
    unread: list[DatasetVersion]


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

    With `dry_run`, only find them. What was withdrawn before is found again. Raises `NotFound` if
    no version holds an item, and `Refused` if unfinished jobs use a version.
    """
    with services.database.read() as session:
        dataset, newest = datasets.resolve_hidden(session, name)
        versions = datasets.all_versions(session, dataset)
    digests = _digests_of(services, newest, items)
    with services.database.read() as session:
        known = datasets.withdrawn(session, dataset)
        hidden = datasets.withdrawn_versions(session, dataset, digests)
    holding, unread, seen = _look(services, versions, digests, hidden)
    if missing := {each for each in digests if int(each, 16) not in known} - seen:
        some = ", ".join(sorted(missing)[:SHOWN])
        raise NotFound(
            f"no version of dataset {name!r} holds {some}",
            remedy="digests are listed by `genmill dataset diff --json`; a file must have the "
            "content that was added",
        )
    if not dry_run:
        record = partial(datasets.withdraw, dataset=dataset, who=who, reason=reason)
        versions_held = [each.id for each in holding]
        services.database.transact(partial(record, digests=digests, versions=versions_held))
    return Withdrawn(digests, holding, unread)


def _look(
    services: Services, versions: Sequence[DatasetVersion], digests: Sequence[str], hidden: set[int]
) -> tuple[list[DatasetVersion], list[DatasetVersion], set[str]]:
    """The versions that hold any of the digests, those whose content is gone, and the digests seen.

    One whose content is gone holds them if its number is among those `hidden` by them before.
    """
    holding, unread, seen = list[DatasetVersion](), list[DatasetVersion](), set[str]()
    for version in versions:
        try:
            own = _content_digests(content_of(services, version))
        except NotFound:  # its objects were collected after it had been removed
            (holding if version.number in hidden else unread).append(version)
            continue
        found = {each for each in digests if int(each, 16) in own}
        seen |= found
        if found:
            holding.append(version)
    return holding, unread, seen


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
