"""Turn a user's files into a dataset version: arrays or rows, and the manifest that names them.

Files are streamed: memory grows by some bytes for each item, but not with its content, captions
apart. Bad files among good ones are left out and reported; a dataset without a usable item is
refused.
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import BadInput, Refused
from worker.data.dataset import Shape
from worker.data.source_files import Reject, Rejects, members, read_errors
from worker.data.split import Counts, checked_ratio
from worker.files import canonical_json, digest_of, disk_errors
from worker.media import all_media, find_medium
from worker.media.base import Intake, Medium, SourceFormat

Choice = tuple[Medium, SourceFormat]


@dataclass(frozen=True)
class Ingested:
    """The manifest, and the first `MAX_REPORTED` of the files and lines that were left out."""

    manifest: dict[str, Any]
    rejects: list[Reject]


def ingest(
    path: Path,
    folder: Path,
    *,
    kind: str | None = None,
    size: int | None = None,
    mode: str | None = None,
    split: Sequence[int] = (90, 5, 5),
) -> Ingested:
    """Write the data at `path` into the empty `folder` as `LocalDataset` describes.

    The files show their format, which must be one of medium `kind` if that is given. Images become
    `size` pixels a side and of colour `mode`, by default as in the data. Equal files give equal
    bytes and manifests. Raises `BadInput` or `Refused` for the files, and `Unreachable` if `folder`
    is not writable.
    """
    rejects, ratio = Rejects(), checked_ratio(split)
    options = {k: v for k, v in {"size": size, "mode": mode}.items() if v is not None}
    medium, source = choose_format(path, kind)
    medium.check_options(path.name, options)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Refused(f"{folder} is not empty")
        shape, counts = source.write(Intake(path, folder, ratio, rejects, options))
        if not sum(counts):
            raise _nothing_usable(path, rejects)
        manifest = _manifest(folder, shape, counts) | {
            "source": {"name": path.resolve().name, "format": source.name},
            "split": list(ratio),
            "rejected": rejects.count,
        }
        (folder / "manifest.json").write_bytes(canonical_json(manifest))
    return Ingested(manifest, rejects.first)


def choose_format(path: Path, kind: str | None) -> Choice:
    """The format of the files at `path`, and its medium; `kind` decides if several fit.

    Raises `BadInput` if no format fits, or only one of another medium than `kind`.
    """
    wanted = find_medium(kind) if kind else None
    with read_errors(path.name):
        if not path.exists():
            raise BadInput(f"{path}: no such file or folder")
        if not (path.is_dir() or path.is_file()):  # opening a pipe waits, and it is read only once
            raise BadInput(
                f"{path.name}: a pipe or device, not a file or folder",
                remedy="write what it gives into a file first",
            )
        if path.is_dir():
            any(path.iterdir())
        else:
            path.open("rb").close()
        is_zip = path.is_file() and zipfile.is_zipfile(path)
    if path.suffix.lower() == ".zip" and path.is_file() and not is_zip:
        raise BadInput(
            f"{path.name}: not a zip file, or cut short", remedy="download or pack it again"
        )
    many = is_zip or path.is_dir()
    medium, source = _format_of_many(path, wanted) if many else _format_of_one(path, wanted)
    if wanted and wanted is not medium:
        raise BadInput(f"{path.name} is {medium.name} data, and kind {kind!r} was asked for")
    return medium, source


def _format_of_many(path: Path, wanted: Medium | None) -> Choice:
    """The format of a folder or zip, by the suffixes of its files, else by their content."""
    unreadable = Rejects()
    suffixes = {member.suffix for member in members(path, unreadable)}
    if not suffixes and unreadable.count:
        raise _nothing_usable(path, unreadable)
    if not suffixes:
        raise BadInput(f"{path.name}: the folder is empty", remedy=_all_formats())
    found = _first(
        lambda medium, source: wanted in {None, medium} and suffixes & source.member_suffixes
    )
    if not found and path.is_dir():
        found = _first(lambda _, source: source.recognises(path))
    if not found:
        shown = ", ".join(sorted(suffixes))
        raise BadInput(f"{path.name}: no usable files, only {shown}", remedy=_all_formats())
    return found


def _format_of_one(path: Path, wanted: Medium | None) -> Choice:
    """The format of a file: by its suffix, else any that `wanted` takes, else by its content."""
    found = (
        _first(lambda _, source: path.suffix.lower() in source.file_suffixes)
        or _first(lambda medium, source: source.any_suffix and wanted is medium)
        or _first(lambda _, source: source.recognises(path))
    )
    if not found:
        what = f"{path.suffix} files are" if path.suffix else "a file without a suffix is"
        raise BadInput(f"{path.name}: {what} not supported", remedy=_all_formats())
    return found


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
        "objects": [
            {"name": each.name, "sha256": digest_of(each), "size": each.stat().st_size}
            for each in sorted(folder.iterdir())
        ],
    }
