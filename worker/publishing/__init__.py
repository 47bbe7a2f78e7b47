"""Targets: the places that samples and models are published to, one module a kind, one contract.

Every module here but `base` is the kind of target of its name (`worker.publishing.base.Target`), so
a new kind is a new file. A target puts items, lists them, gives them back and takes them down; it
knows no record, queue or store, and not why an item is published. `access` is how targets are
reached: secrets, addresses, HTTP. A kind's library is imported when such a target is opened.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from db.errors import Refused

if TYPE_CHECKING:
    from worker.publishing.base import AnyTarget

KINDS = tuple(
    sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if not module.ispkg and module.name != "base"
    )
)


def find_kind(kind: str) -> "type[AnyTarget]":
    """The class of targets of a kind; `Refused` if there is none."""
    if kind not in KINDS:
        raise Refused.unknown("kind of target", kind, KINDS)
    found: type[AnyTarget] = importlib.import_module(f"{__name__}.{kind}").TARGET
    return found


def open_target(kind: str, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> "AnyTarget":
    """A target by its settings, and by where its secrets are; nothing is connected yet.

    Raises `Refused` for wrong settings, and `SecretMissing` without a secret.
    """
    from worker.publishing.access.secrets import read_secrets  # noqa: PLC0415 - imports this room

    target = find_kind(kind)
    return target(target.parse(settings), read_secrets(secrets))
