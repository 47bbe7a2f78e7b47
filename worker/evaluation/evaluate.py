"""Measuring a version: by its medium, with the report as files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.engine.device import deterministic
from worker.evaluation.media import find_measure
from worker.evaluation.report import write_report
from worker.evaluation.request import Request
from worker.evaluation.stages import Stage
from worker.media import find_medium
from worker.networks.family import Family

ITEMS = "items.npz"


def needs_judge(family: Family) -> bool:
    """Whether samples of this family are looked at as pictures."""
    return find_medium(family.media).pictured


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found: its numbers, and files with their media types, items first."""

    numbers: dict[str, Any]
    left_out: dict[str, str]
    files: list[tuple[Path, str]]


def evaluate(request: Request, stage: Stage) -> Evaluated:
    """Measure a version by its medium; lets the monitor's `Stopped` through."""
    deterministic()
    measured = find_measure(request.family.media)(request, stage.part("", 0, 0.97))
    items = request.folder / ITEMS
    write_items(measured.items, items)
    reports = write_report(request, measured)
    files = [(items, "application/zip"), *reports]
    return Evaluated(measured.numbers.data, measured.numbers.left_out, files)


def write_items(arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Write arrays as an `.npz` without pickles; equal arrays give equal bytes."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(sorted(arrays.items())))


def read_items(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read what `write_items` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
