"""What is measured of each medium: every module is the medium of its name and has `measure`."""

import importlib
from collections.abc import Callable

from worker.evaluation.request import Measured, Request
from worker.evaluation.stages import Stage

Measure = Callable[[Request, Stage], Measured]


def find_measure(medium: str) -> Measure:
    """How versions that make this medium are measured."""
    measure: Measure = importlib.import_module(f"{__name__}.{medium}").measure
    return measure
