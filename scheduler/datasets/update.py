"""Updating a dataset: a new version of what a version has and what came."""

from dataclasses import replace
from pathlib import Path

from db import datasets
from scheduler.datasets.add import Added, Parent, add_dataset
from scheduler.datasets.content import content_of
from worker.cleaning.recipe import Recipe
from worker.cleaning.steps import Progress
from worker.data.dataset import LocalDataset
from worker.ingest.ingest import About
from worker.services import Services


def update_dataset(
    services: Services,
    reference: str,
    path: Path,
    about: About,
    *,
    progress: Progress | None = None,
) -> Added:
    """A new version with the items of the one that `reference` means, and those at `path`.

    The options are those of the version. What is said of it stays, unless `about` says otherwise.
    """
    with services.database.read() as session:
        dataset, version = datasets.resolve(session, reference)
    content = content_of(services, version)
    return add_dataset(
        services,
        dataset.name,
        path,
        recipe_of(content),
        _said(About.of(content.manifest), about),
        parent=Parent(f"{dataset.name}:{version.number}", content),
        progress=progress,
    )


def recipe_of(content: LocalDataset) -> Recipe:
    """The options that make further files fit to a version."""
    manifest = content.manifest
    shape = manifest["shape"]
    recipe = Recipe.from_json(manifest.get("options", {"split": manifest["split"]}))
    recipe = replace(recipe, kind=shape["media"])
    if shape["media"] == "image":
        return replace(recipe, size=shape["size"], mode="L" if shape["channels"] == 1 else "RGB")
    return replace(recipe, rate=shape["sample_rate"]) if shape["media"] == "audio" else recipe


def _said(before: About, now: About) -> About:
    return About(
        now.licence or before.licence,
        now.source or before.source,
        {**before.tags, **now.tags},
        now.augmentations or before.augmentations,
    )
