"""The media: all that is particular to images, sounds or texts, one module and one object each.

A medium says which files it takes from users and how they become a dataset, how a sample is encoded
with its record, how samples are shown, and in which formats they are downloaded: see
`worker.media.base.Medium`. Every module here but `base` is the medium of its name, so a new medium
is a new file. Knows no family, network or store; no torch, because the scheduler uses it as well.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from db.errors import BadInput, Refused

if TYPE_CHECKING:
    from worker.media.base import Medium
    from worker.media.samples.record import Record

MEDIA = tuple(
    sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if not module.ispkg and module.name != "base"
    )
)


def find_medium(name: str) -> "Medium":
    """The medium called `name`; `Refused` if there is none."""
    if name not in MEDIA:
        raise Refused.unknown("medium", name, MEDIA)
    medium: Medium = importlib.import_module(f"{__name__}.{name}").MEDIUM
    return medium


def all_media() -> "Iterator[Medium]":
    """Every medium, in the order in which a user's files are tried."""
    yield from sorted(map(find_medium, MEDIA), key=lambda medium: medium.precedence)


def read_record(data: bytes) -> "Record":
    """The record inside a sample's bytes, of any medium; `BadInput` if there is none."""
    return medium_of(data).read_record(data)


def medium_of(data: bytes) -> "Medium":
    """The medium of a sample's bytes; `BadInput` if there is none."""
    for medium in all_media():
        if medium.claims(data):
            return medium
    raise BadInput(f"not a sample made by Genmill: begins with {data[:4].hex(' ') or 'nothing'}")
