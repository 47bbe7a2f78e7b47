"""The files to verify: those that were named, and all in the folders that were named."""

import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from db.errors import BadInput
from db.path_errors import reading, require_file, shown
from scheduler.results import marks_file
from scheduler.results.pieces import SIDECAR
from scheduler.results.sinks import METADATA

ABOUT = {METADATA, marks_file.NAME}  # files of a download that say something of others
RECORD = ".json"  # of a sample of the same name


def walk(paths: Sequence[Path]) -> Iterator[Path]:
    """Every file, in the order of the paths and, inside a folder, of their names.

    In folders, hidden files, and records and manifests beside their samples are skipped, and no
    link is followed. Raises `BadInput` for a path that cannot be read or is a pipe or a device,
    and for a folder without files.
    """
    for path in paths:
        with reading(path):
            is_folder = bool(path.stat()) and path.is_dir()
        if is_folder:
            yield from _inside(path)
        else:
            require_file(path)
            yield path


def _inside(folder: Path) -> Iterator[Path]:
    found = False
    with reading(folder):
        for place, folders, names in os.walk(folder, onerror=_fail):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            beside = _beside(names)
            for path in (Path(place, name) for name in sorted(names)):
                if not _is_skipped(path, beside):
                    found = True
                    yield path
    if not found:
        raise BadInput(f"{shown(folder)} holds no files to verify", remedy="check the path")


def _beside(names: Sequence[str]) -> set[str]:
    """What records and manifests are called that lie beside some of the files."""
    samples = {Path(name).stem for name in names if not name.endswith((RECORD, SIDECAR))}
    signed = samples | {Path(name).stem for name in names if name.endswith(RECORD)}
    return {f"{stem}{RECORD}" for stem in samples} | {f"{stem}{SIDECAR}" for stem in signed}


def _is_skipped(path: Path, beside: Container[str]) -> bool:
    """Whether a file is no sample; `beside` are the names of records and manifests."""
    if path.name.startswith(".") or path.is_symlink() or not path.is_file():
        return True
    return path.name in ABOUT or path.name in beside


def _fail(error: OSError) -> None:
    raise error
