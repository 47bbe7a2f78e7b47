"""Which model versions this Genmill would not load, and why.

No tensor is read, so that looking at every version is cheap: the settings on record, `config.json`,
the sizes of the files, and the headers of the weights. What compares tensors with the network needs
PyTorch and is handed in.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from db import models
from db.errors import BadInput, DigestMismatch, GenmillError, Unreachable
from db.tables import Model, ModelVersion
from scheduler.results.threads import in_order
from worker.data.dataset import Shape
from worker.families import find_family
from worker.networks.family import Family
from worker.networks.version_folder import CONFIG, WEIGHTS_SUFFIX, Config, checked_record
from worker.services import Services
from worker.specs import parse_params
from worker.store.base import ObjectStore

LOOKED_AT = 2000  # the newest versions
MAX_CONFIG_BYTES = 4 << 20
MAX_HEADER_BYTES = 16 << 20
RESTORE = "restore it from a backup"

Shapes = Mapping[str, Sequence[int]]  # of a version's tensors, by name
Fits = Callable[[Config, Shapes], None]  # raises unless the network of a record has these tensors
Header = tuple[Config, Shapes]


class Unloadable(NamedTuple):
    """A version that would not load."""

    version: str  # NAME:NUMBER
    found: str
    remedy: str


@dataclass(frozen=True)
class Looked:
    """How many versions were looked at, how many older ones were not, and those that are wrong."""

    count: int
    left_out: int
    unloadable: list[Unloadable]

    def __str__(self) -> str:
        """A line for people."""
        if not self.count:
            return "none yet"
        loading = self.count - len(self.unloadable)
        older = f", {self.left_out:,} older ones were not looked at" if self.left_out else ""
        noun = "version" if self.count == 1 else "versions"
        return f"{loading:,} of {self.count:,} {noun} would load{older}"


def look_at_versions(services: Services, fits: Fits | None = None) -> Looked:
    """Look at the newest versions of all models. Raises `Unreachable` if the store is away."""
    with services.database.read() as session:
        found = models.newest(session, LOOKED_AT)
        left_out = models.count_versions(session) - len(found)
    headers = in_order(partial(_read_or_error, services.store), found)
    looked = ((each, _error_of(header, fits)) for each, header in zip(found, headers, strict=True))
    wrong = [_unloadable(*each, error) for each, error in looked if error is not None]
    return Looked(len(found), left_out, wrong)


def _unloadable(model: Model, version: ModelVersion, error: GenmillError) -> Unloadable:
    name = f"{model.name}:{version.number}"
    return Unloadable(name, error.message, error.remedy or RESTORE)


def _error_of(header: Header | GenmillError, fits: Fits | None) -> GenmillError | None:
    if isinstance(header, GenmillError):
        return header
    record, shapes = header
    try:
        if fits is not None and find_family(record["family"]).foreign is None:
            fits(record, shapes)
    except GenmillError as error:
        return error
    return None


def _read_or_error(store: ObjectStore, each: tuple[Model, ModelVersion]) -> Header | GenmillError:
    try:
        return _read(store, *each)
    except Unreachable:
        raise
    except GenmillError as error:
        return error


def _read(store: ObjectStore, model: Model, version: ModelVersion) -> Header:
    """The record and the tensors' shapes of a version; raises what is wrong with it."""
    family = find_family(model.family)
    settings = family.training_settings(version.params, version.format, what="the version")
    parse_params(family.params, settings, what=family.name)
    record = _record(store, version, family)
    params = family.read_params(record, what=f"{CONFIG} of {family.name}")
    Shape.from_json(record["shape"])
    for kept in family.files:
        if kept.needed(params):
            _file(version, kept.name)
    return record, _shapes(store, version)


def _record(store: ObjectStore, version: ModelVersion, family: Family) -> Config:
    file = _file(version, CONFIG)
    _require_size(store, CONFIG, file)
    if file["size"] > MAX_CONFIG_BYTES:
        raise BadInput(f"{CONFIG} has {file['size']:,} bytes, which is too many")
    try:
        config = json.loads(_bytes(store, file, 0, file["size"]))
    except (ValueError, RecursionError):
        raise BadInput(f"{CONFIG} is not JSON") from None
    record = checked_record(config if isinstance(config, dict) else {}, CONFIG)
    if record["family"] != family.name:
        raise BadInput(f"{CONFIG} is of family {record['family']!r}, the model of {family.name!r}")
    return record


def _shapes(store: ObjectStore, version: ModelVersion) -> Shapes:
    """The shapes of all tensors, by the headers; every other file is there with its size."""
    found: dict[str, Sequence[int]] = {}
    for name, file in version.files.items():
        if name != CONFIG:
            _require_size(store, name, file)
        if name.endswith(WEIGHTS_SUFFIX):
            found |= _shapes_in(store, name, file)
    return found


def _shapes_in(store: ObjectStore, name: str, file: Mapping[str, Any]) -> Shapes:
    """The shapes in one file of weights, whose header accounts for every byte."""
    length = int.from_bytes(_bytes(store, file, 0, 8), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, file["size"] - 8):
        raise BadInput(f"{name} is not a safetensors file")
    try:
        header = json.loads(_bytes(store, file, 8, 8 + length))
        tensors = {key: entry for key, entry in header.items() if key != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        shapes = {key: tuple(entry["shape"]) for key, entry in tensors.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise BadInput(f"the header of {name} is damaged") from None
    if (stored := file["size"] - 8 - length) != end:
        raise BadInput(f"{name} has {stored} bytes of tensors, but its header says {end}")
    return shapes


def _file(version: ModelVersion, name: str) -> Mapping[str, Any]:
    if name not in version.files:
        raise BadInput(f"the version has no {name}")
    found: Mapping[str, Any] = version.files[name]
    return found


def _require_size(store: ObjectStore, name: str, file: Mapping[str, Any]) -> None:
    if (size := store.stat(file["key"]).size) != file["size"]:
        raise DigestMismatch(f"{name} has {size} bytes in the store, and {file['size']} on record")


def _bytes(store: ObjectStore, file: Mapping[str, Any], start: int, stop: int) -> bytes:
    with store.open(file["key"], start=start, stop=stop) as source:
        return source.read()
