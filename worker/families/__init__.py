"""The families: a folder for each kind of model, found by being there. No torch here.

A family's `__init__.py` declares `FAMILY`, a `worker.networks.family.Family`: all that others know
about it. Its `model.py` holds the network (see `worker.networks.network.Network`) and is imported
only where it runs; `layout.py`, if any, says how models of another library become its versions.
Families know nothing of one another, nor of queues, databases and stores.
"""

import importlib
import pkgutil
from functools import cache

from db.causes import Cause
from db.errors import NotFound
from worker.networks.family import Family


class NotInstalled(NotFound):
    """No such family is installed here."""

    cause = Cause.MACHINE
    lasting = True


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
        raise NotInstalled.unknown("family", name, families()) from None
