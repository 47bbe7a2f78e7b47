"""The numbers of evaluations and trainings, for tables."""

from collections.abc import Mapping
from typing import Any

from scheduler.output.documents import Document

NUMBER_COLUMNS = ("number", "value", "low", "high", "real", "n", "better")
DIGITS = 6  # of a judge's digest


def number_rows(numbers: Mapping[str, Mapping[str, Any]]) -> list[Document]:
    """A row for each number, with four significant digits."""
    return [
        {
            "number": name,
            **{key: _shown(number[key]) for key in ("value", "low", "high", "real")},
            "n": number["n"],
            "better": number["better"],
        }
        for name, number in sorted(numbers.items())
    ]


def protocol_line(protocol: Mapping[str, Any]) -> str:
    """What people need to know of a protocol: data, size, seed, judge."""
    recipe, _, digest = (protocol["judge"] or "").partition(":")
    judge = f", judge {recipe}:{digest[:DIGITS]}" if recipe else ""
    return (
        f"{protocol['count']:,} samples of seed {protocol['seed']} against split "
        f"{protocol['split']} of {protocol['dataset']}{judge}"
    )


def scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a version that are single numbers."""
    return {name: each for name, each in metrics.items() if isinstance(each, int | float)}


def _shown(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
