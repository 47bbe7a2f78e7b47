"""Removing versions of datasets: they are hidden, and freed where nothing names the content."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from sqlalchemy.orm import Session

from db import datasets, holders, lineage, version_removal
from db.errors import Gone, NotFound, Unreachable
from db.holders import Held
from db.registry import Reference
from db.tables import Dataset, DatasetVersion
from scheduler.output.render import to_count
from scheduler.removal.objects import UnreadableManifest, finish_versions, sweep_all, used_by
from scheduler.removal.plan import Item, Plan, refuse_held
from scheduler.removal.schedules import naming_datasets
from worker.identity import who
from worker.services import Services

REMEDY = "remove these schedules, or let them use another dataset"


class _Found(NamedTuple):
    dataset: Dataset
    versions: list[DatasetVersion]
    names: dict[str, str]  # by id
    named: Held  # what names their content
    others: set[str]  # the manifests of all other versions in use
    follows: list[str]


@dataclass
class DatasetPlan(Plan):
    """The versions of one dataset to remove."""

    dataset: Dataset | None = None
    kept: bool = False

    def carry_out(self, services: Services) -> None:
        """Hide them, and delete what nothing else names. Raises `Refused` if a job uses one."""
        if self.dataset is None:
            return
        sizes = {item.id: item.size_bytes for item in self.items}
        work = partial(version_removal.remove_content, dataset=self.dataset, sizes=sizes)
        services.database.transact(partial(work, who=who(), kept=self.kept))
        sweep_all(services, list(sizes))


def plan_datasets(services: Services, reference: str, *, kept: bool, dry_run: bool) -> DatasetPlan:
    """What removing a version, or all versions of a bare name, would do.

    Finishes the removal of one that was interrupted, unless this is a `dry_run`. Raises `Refused`
    if a schedule or an unfinished job uses one, `NotFound`, and `Gone` for what has been removed.
    """
    try:
        with services.database.read() as session:
            found = _find(session, reference)
    except Gone:
        finished = [] if dry_run else finish_versions(services, "dataset", reference)
        if not finished:
            raise
        return DatasetPlan(finished=finished)
    plan = DatasetPlan(dataset=found.dataset, kept=kept, follows=found.follows)
    try:
        plan.items = list(_items(services, found, kept=kept))
    except (UnreadableManifest, Unreachable) as error:  # nobody knows what may go
        plan.kept, found = True, found._replace(named={each: [str(error)] for each in found.names})
        plan.items = list(_items(services, found, kept=True))
    return plan


def _find(session: Session, reference: str) -> _Found:
    dataset, versions = version_removal.removable_datasets(session, reference)
    datasets.refuse_used(session, dataset, versions)
    names = {each.id: f"{dataset.name}:{each.number}" for each in versions}
    refuse_held(_schedules(session, dataset, versions), names, remedy=REMEDY)
    return _Found(
        dataset,
        versions,
        names,
        holders.of_content(session, versions),
        datasets.manifests_in_use(session, without=names),
        _follows(session, dataset, list(names.values())),
    )


def _items(services: Services, found: _Found, *, kept: bool) -> Iterator[Item]:
    """What becomes of each version. Raises `UnreadableManifest`."""
    goes = {each for each in found.names if not kept and each not in found.named}
    used = {key for each in (found.others if goes else ()) for key in used_by(services, each)}
    for version in found.versions:
        place = ("dataset", version.id, found.names[version.id])
        if version.id not in goes:
            yield Item(*place, kept=True, because=found.named.get(version.id, []))
            continue
        sizes = {k: v for k, v in _sizes(services, version).items() if k not in used}
        used |= sizes.keys()
        yield Item(*place, sum(sizes.values()), len(sizes))


def _schedules(session: Session, dataset: Dataset, versions: list[DatasetVersion]) -> Held:
    """The schedules that would have no data any more."""
    numbers = {str(each.number): each.id for each in versions}
    left = {str(each.number) for each in datasets.versions(session, dataset)} - numbers.keys()

    def means(reference: Reference) -> bool:
        named = reference.name == dataset.name
        return named and (not left if reference.number is None else reference.number in numbers)

    using = [f"the schedule {name} uses it" for name in naming_datasets(session, means)]
    return {each.id: using for each in versions[:1]} if using else {}


def _follows(session: Session, dataset: Dataset, names: list[str]) -> list[str]:
    """What removing the versions changes for what stays."""
    told = [
        f"{reference}, which was made from {version.summary['parent']}, stays"
        for version in datasets.versions(session, dataset)
        if (reference := f"{dataset.name}:{version.number}") not in names
        and version.summary.get("parent") in names
    ]
    if ended := lineage.count_ended_with(session, names):
        told.append(f"{to_count(ended, 'ended job')} used it, and can no longer be retried")
    return told


def _sizes(services: Services, version: DatasetVersion) -> dict[str, int]:
    """The sizes of a version's objects by their keys; nothing if they are gone."""
    try:
        with services.store.open(version.manifest_key) as file:
            data = file.read()
    except NotFound:
        return {}
    try:
        entries = json.loads(data)["objects"]
        sizes = {f"datasets/blobs/{each['sha256']}": int(each["size"]) for each in entries}
    except (ValueError, LookupError, TypeError):  # damaged: only itself can be found
        sizes = {}
    return sizes | {version.manifest_key: len(data)}
