"""The families: one folder a kind of model, found by folder. No torch here.

A family's `__init__.py` declares `FAMILY`, a `worker.networks.family.Family`. Its `model.py` holds
the network (see `worker.networks.network.Network`), which is imported only where it runs.
"""

import importlib
import pkgutil
from functools import cache
from typing import Any

from db.errors import NotFound
from worker.networks.family import Family


def own_record(config: dict[str, Any]) -> dict[str, Any]:
    """Genmill's part of a `config.json`: all of it, or what lies under `genmill`."""
    inner = config.get("genmill")
    return inner if isinstance(inner, dict) else config


@cache
def families() -> dict[str, Family]:
    """Every family found, by name."""
    found = (
        importlib.import_module(f"{__name__}.{module.name}").FAMILY
        for module in pkgutil.iter_modules(__path__)
        if module.ispkg
    )
    return {family.name: family for family in sorted(found, key=lambda family: family.name)}


def find_family(name: str) -> Family:
    """The family called `name`; `NotFound` with the nearest spelling where there is none."""
    try:
        return families()[name]
    except KeyError:
        raise NotFound.unknown("family", name, families()) from None
