"""Turn a user's files into a dataset version: arrays or rows, and the manifest that names them.

Needs NumPy and Pillow only, so that `dataset add` runs where no torch is. Reads what it is given as
a stream: memory grows by some bytes an item, never by its content, captions apart. One bad file
among good ones is reported and left out; a data set with nothing good in it is refused.
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import BadInput, Refused
from worker.data.dataset import Shape
from worker.data.source_files import Reject, Rejects, members, reading
from worker.data.split import Counts, checked_ratio
from worker.files import canonical_json, digest_of, disk_errors
from worker.media import all_media, find_medium
from worker.media.base import Intake, Medium, SourceFormat

Choice = tuple[Medium, SourceFormat]


@dataclass(frozen=True)
class Ingested:
    """What became of the files; `rejects` holds the first `MAX_REPORTED` of those left out."""

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

    The format is told from the files themselves, among those of medium `kind` where that is given.
    Images become `size` pixels a side (the data's own where None) in `mode`. Equal files give equal
    bytes, and so an equal manifest. Raises `BadInput` or `Refused` with what is wrong and what is
    taken, `Unreachable` where `folder` cannot be written to.
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
    """The format of the files at `path`, and its medium; `kind` where they may be of two.

    Raises `BadInput` where no format is theirs, or that of another medium than `kind`.
    """
    wanted = find_medium(kind) if kind else None
    with reading(path.name):
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
        raise BadInput(f"{path.name}: not a zip, or one cut short", remedy="fetch or pack it again")
    many = is_zip or path.is_dir()
    medium, source = _format_of_many(path, wanted) if many else _format_of_one(path, wanted)
    if wanted and wanted is not medium:
        raise BadInput(f"{path.name}: {medium.name} data, and kind {kind!r} was asked for")
    return medium, source


def _format_of_many(path: Path, wanted: Medium | None) -> Choice:
    """That of a folder or zip, by the suffixes of the files inside, else by a look at them."""
    unreadable = Rejects()
    suffixes = {member.suffix for member in members(path, unreadable)}
    if not suffixes and unreadable.count:
        raise _nothing_usable(path, unreadable)
    if not suffixes:
        raise BadInput(f"{path.name}: the folder is empty", remedy=_all_that_is_taken())
    found = _first(lambda medium, source: wanted in {None, medium} and suffixes & source.inside)
    if not found and path.is_dir():
        found = _first(lambda _, source: source.recognises(path))
    if not found:
        shown = ", ".join(sorted(suffixes))
        raise BadInput(f"{path.name}: nothing usable among {shown}", remedy=_all_that_is_taken())
    return found


def _format_of_one(path: Path, wanted: Medium | None) -> Choice:
    """That of a single file, by its suffix, else as `wanted` takes any, else by a look at it."""
    found = (
        _first(lambda _, source: path.suffix.lower() in source.alone)
        or _first(lambda medium, source: source.any_name and wanted is medium)
        or _first(lambda _, source: source.recognises(path))
    )
    if not found:
        what = f"{path.suffix} files are" if path.suffix else "a file without a suffix is"
        raise BadInput(f"{path.name}: {what} not taken", remedy=_all_that_is_taken())
    return found


def _choices() -> list[Choice]:
    return [(medium, source) for medium in all_media() for source in medium.sources]


def _first(fits: Callable[[Medium, SourceFormat], object]) -> Choice | None:
    return next((choice for choice in _choices() if fits(*choice)), None)


def _all_that_is_taken() -> str:
    return f"taken are {', '.join(source.taken for _, source in _choices())}"


def _nothing_usable(path: Path, rejects: Rejects) -> BadInput:
    text = f"{path.name}: nothing usable in it"
    if not rejects.count:
        return BadInput(text, remedy=_all_that_is_taken())
    first = rejects.first[0]
    return BadInput(f"{text}; {rejects.count} left out, the first: {first.name}: {first.reason}")


def _manifest(folder: Path, shape: Shape, counts: Counts) -> dict[str, Any]:
    """What was written. No times and no paths: equal data have equal manifests."""
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
