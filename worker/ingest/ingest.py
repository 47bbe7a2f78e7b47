"""Turn a user's files into a dataset version: arrays or rows, and the manifest that names them.

Files are streamed: memory grows by some bytes for each item, but not with its content, captions
apart. Bad files among good ones are left out and reported; a dataset without a usable item is
refused.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from db.errors import BadInput, Refused
from worker.cleaning.augmentations import check_augmentations
from worker.cleaning.recipe import Recipe
from worker.cleaning.settle import Settlement
from worker.cleaning.steps import Chain, Progress
from worker.data.dataset import LocalDataset, Shape
from worker.data.split import Counts, checked_ratio
from worker.files import canonical_json, digest_of, disk_errors
from worker.media import all_media, find_medium
from worker.media.base import Intake, Medium, SourceFormat
from worker.media.sources.layout import shown
from worker.source_files.kinds import describe_name
from worker.source_files.members import Reject, Rejects
from worker.source_files.source import Source, open_source
from worker.source_files.unsupported import describe_unsupported

Choice = tuple[Medium, SourceFormat]

_NOTES = {"readme", "license", "licence", "copying", "notice", "changelog"}  # beside the data


@dataclass(frozen=True)
class About:
    """What a user says of data: the licence (an SPDX id or free text), the source, free tags.

    `augmentations` are declared with the data, and applied by the training loop.
    """

    licence: str | None = None
    source: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    augmentations: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What was said, as plain data; `source` is beside the name of the files."""
        said = {
            "licence": self.licence,
            "tags": dict(self.tags),
            "augmentations": dict(self.augmentations),
        }
        return {name: value for name, value in said.items() if value}

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "About":
        """What the manifest of a version says."""
        return cls(
            manifest.get("licence"),
            manifest["source"].get("stated"),
            manifest.get("tags", {}),
            manifest.get("augmentations", {}),
        )


PLAIN, NOTHING = Recipe(), About()


@dataclass(frozen=True)
class Ingested:
    """The manifest, and what a person should know of it.

    `rejects` are the first `MAX_REPORTED` of the files and lines that were left out; `reading` says
    how labels, splits and captions were read.
    """

    manifest: dict[str, Any]
    rejects: list[Reject]
    reading: dict[str, str]


def ingest(
    path: Path,
    folder: Path,
    recipe: Recipe = PLAIN,
    *,
    about: About = NOTHING,
    parent: LocalDataset | None = None,
    progress: Progress | None = None,
    withdrawn: frozenset[int] = frozenset(),
) -> Ingested:
    """Write the data at `path` into the empty `folder` as `LocalDataset` describes.

    The files show their format, which must be one of the recipe's medium if that is given. Images
    become of one size and mode, by default as in the data; sounds of another rate than most are
    resampled, unless the recipe forbids it. The items of `parent` come first, and keep their
    splits; those whose digests were `withdrawn` are left out. Equal files give equal bytes and
    manifests. Raises `BadInput` or `Refused` for the
    files, and `Unreachable` if `folder` is not writable.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Refused(f"{folder} is not empty")
        with open_source(path, folder) as source:
            medium, form = choose_format(source, recipe.kind)
            medium.check_options(path.name, recipe.of_medium())
            check_augmentations(about.augmentations, medium.name, medium.augmentations)
            intake = _intake(source, folder, medium, recipe, parent, progress)
            intake.settlement.withdrawn = withdrawn
            shape, counts = form.write(intake)
        rejects, reading = intake.rejects, intake.reading
        if not sum(counts):
            raise _nothing_usable(path, rejects)
        manifest = _manifest(folder, shape, counts) | about.to_json() | _origin(path, form, about)
        manifest |= _record(recipe, intake)
        if parent is not None:
            manifest["parent"] = digest_of(parent.folder / "manifest.json")
        (folder / "manifest.json").write_bytes(canonical_json(manifest))
    if rejects.ignored:
        reading["ignored"] = shown(sorted(rejects.ignored))
    return Ingested(manifest, rejects.first, reading)


def _intake(
    source: Source,
    folder: Path,
    medium: Medium,
    recipe: Recipe,
    parent: LocalDataset | None,
    progress: Progress | None,
) -> Intake:
    """The files on their way, with what is to be done to them."""
    smallest, unit = medium.smallest
    min_size = smallest if recipe.min_size is None else recipe.min_size
    chain = Chain(medium.cleaning(recipe), min_size=min_size, unit=unit, progress=progress)
    settlement = Settlement(
        checked_ratio(recipe.split),
        recipe.duplicates,
        recipe.near_duplicates,
        parent=parent,
        progress=chain.progress,
    )
    return Intake(source, folder, Rejects(), chain, settlement, recipe.of_medium(), {})


def _origin(path: Path, form: SourceFormat, about: About) -> dict[str, Any]:
    source = {"name": path.resolve().name, "format": form.name}
    return {"source": source | ({"stated": about.source} if about.source else {})}


def _record(recipe: Recipe, intake: Intake) -> dict[str, Any]:
    """What was asked for and what was done."""
    settlement = intake.settlement
    steps = [*intake.chain.reports(intake.rejects), *settlement.reports]
    record = {
        "split": list(settlement.ratio),
        "rejected": intake.rejects.count,
        "options": recipe.given(),
        "steps": [each.to_json() for each in steps],
    }
    return record | ({"stated": sorted(settlement.stated)} if settlement.stated else {})


def choose_format(source: Source, kind: str | None) -> Choice:
    """The format of a user's files, and its medium; `kind` decides if several fit.

    Raises `BadInput` if no format fits, or only one of another medium than `kind`.
    """
    wanted = find_medium(kind) if kind else None
    find = _format_of_one if source.is_single else _format_of_many
    medium, form = find(source, wanted)
    if wanted and wanted is not medium:
        raise BadInput(f"{source.name} is {medium.name} data, and kind {kind!r} was asked for")
    return medium, form


def _format_of_many(source: Source, wanted: Medium | None) -> Choice:
    """The format of a folder or archive, by the suffixes of its files, else by their content."""
    unreadable = Rejects()
    suffixes = Counter(
        member.suffix
        for member in source.members(unreadable)
        if member.stem.casefold() not in _NOTES
    ) or Counter(member.suffix for member in source.members())
    if not suffixes and unreadable.count:
        raise _nothing_usable(source.path, unreadable)
    if not suffixes:
        what = "folder" if source.path.is_dir() else "archive"
        raise BadInput(f"{source.name}: the {what} is empty", remedy=_all_formats())
    found = _first(
        lambda medium, form: wanted in {None, medium} and suffixes.keys() & form.member_suffixes
    ) or _first(lambda _, form: form.recognises(source))
    if not found:
        what, remedy = next(filter(None, map(describe_name, sorted(suffixes))), ("", ""))
        raise BadInput(
            f"{source.name}: no usable files, only {shown(sorted(suffixes))}"
            + (f" ({what})" if what else ""),
            remedy=remedy if len(suffixes) == 1 and remedy else _all_formats(),
        )
    return _largest(found, suffixes)


def _largest(found: Choice, suffixes: Counter[str]) -> Choice:
    """The format, or another of its medium with more files if it gives way to such."""
    medium, form = found

    def files(each: SourceFormat) -> int:
        return sum(suffixes[suffix] for suffix in each.member_suffixes)

    return (medium, max(medium.sources, key=files)) if form.gives_way else found


def _format_of_one(source: Source, wanted: Medium | None) -> Choice:
    """The format of a file: by its suffix, else any that `wanted` takes, else by its content."""
    suffix = source.path.suffix.lower()
    found = (
        _first(lambda _, form: suffix in form.file_suffixes)
        or _first(lambda medium, form: form.any_suffix and wanted is medium)
        or _first(lambda _, form: suffix in form.member_suffixes)
        or _first(lambda _, form: form.recognises(source))
    )
    if not found:
        raise _unsupported(source)
    return found


def _unsupported(source: Source) -> BadInput:
    """A refusal that says what a file is, and what to do with it."""
    what, remedy = describe_unsupported(source.path) or ("", "")
    if not what:
        suffix = source.path.suffix
        kind = f"{suffix} files are" if suffix else "a file without a suffix is"
        return BadInput(f"{source.name}: {kind} not supported", remedy=_all_formats())
    return BadInput(f"{source.name}: {what}", remedy=remedy)


def _choices() -> list[Choice]:
    return [(medium, source) for medium in all_media() for source in medium.sources]


def _first(fits: Callable[[Medium, SourceFormat], object]) -> Choice | None:
    return next((choice for choice in _choices() if fits(*choice)), None)


def _all_formats() -> str:
    *others, last = (source.description for _, source in _choices())
    return f"use {', '.join(others)} or {last}"


def _nothing_usable(path: Path, rejects: Rejects) -> BadInput:
    if not rejects.count:
        return BadInput(f"{path.name}: nothing usable in it", remedy=_all_formats())
    first = rejects.first[0]
    return BadInput(
        f"{path.name}: nothing usable in it, {rejects.count} left out (the first: "
        f"{first.name}: {first.reason})"
    )


def _manifest(folder: Path, shape: Shape, counts: Counts) -> dict[str, Any]:
    """What was written. It has no times or paths, so equal data have equal manifests."""
    return {
        "kind": shape.media,
        "labels": list(shape.labels),
        "counts": dict(zip(("train", "validation", "test"), counts, strict=True)),
        "shape": shape.to_json(),
        "balance": _balance(folder),
        "objects": [
            {"name": each.name, "sha256": digest_of(each), "size": each.stat().st_size}
            for each in sorted(folder.iterdir())
        ],
    }


def _balance(folder: Path) -> list[int]:
    """The number of items of each label."""
    path = folder / "labels.npy"
    return np.bincount(np.load(path, mmap_mode="r")).tolist() if path.exists() else []
