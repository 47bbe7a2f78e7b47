"""Adding and checking targets."""

import os
import posixpath
from collections.abc import Hashable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json
from sqlalchemy.orm import Session

from db import audit_trail, targets
from db.errors import BadRecord, Refused
from db.tables import Target
from worker.identity import who
from worker.mark_profile import Profile
from worker.marks.profiles import looked_up
from worker.publishing import find_kind, open_target
from worker.publishing.access.addresses import Server, server
from worker.publishing.access.secrets import parse_places
from worker.publishing.base import TargetSettings
from worker.services import Services
from worker.specs import check_name
from worker.store.address import S3Address

PORTS = {"http": 80, "https": 443, "sftp": 22}


def add_target(
    services: Services,
    name: str,
    kind: str,
    address: str,
    *,
    settings: Sequence[str] = (),
    secrets: Sequence[str] = (),
    expires_after: timedelta | None = None,
) -> Target:
    """Add a target. Nothing is connected; `check_target` does that.

    Raises `Refused` for a name, setting or secret that is wrong, or missing, repeating no value;
    and for the address of another target, or one inside of it or around it.
    """
    check_name("target", name)
    target = find_kind(kind)
    places = parse_places(secrets, target.secrets)
    given = parse_settings(settings) | {"address": _absolute(address)}
    checked = _with_profile(target.parse(given))
    target(checked, dict.fromkeys(places, "?"))  # refuses what does not go together

    def work(session: Session) -> Target:
        _refuse_shared(session, name, _place(kind, given))
        added = targets.add(
            session,
            name=name,
            kind=kind,
            settings=checked.model_dump(mode="json", exclude_defaults=True),
            secrets=places,
            who=who(),
            expires_after_s=expires_after.total_seconds() if expires_after else None,
        )
        audit_trail.note(session, who(), "added a target", name, {"kind": kind})
        return added

    return services.database.transact(work)


class _Place(NamedTuple):
    """Where a target puts items, of whichever kind: a service, and a folder there by its parts."""

    service: Hashable
    folder: tuple[str, ...] = ()

    def holds(self, other: "_Place") -> bool:
        """Whether the other is here, or inside of this folder."""
        return self.service == other.service and self.folder == other.folder[: len(self.folder)]


def _refuse_shared(session: Session, name: str, place: _Place) -> None:
    """Raise `Refused` if another target is at the place, inside of it, or around it."""
    for other in targets.listing(session):
        theirs = _place(other.kind, other.settings)
        if other.name == name or not (theirs.holds(place) or place.holds(theirs)):
            continue
        if theirs == place:
            raise Refused(
                f"target {other.name!r} has this address already: what is taken down at one would "
                "be gone from the other",
                remedy=f"use {other.name!r}, or another folder or prefix",
            )
        lies = "inside of" if theirs.holds(place) else "around"
        raise Refused(
            f"this address lies {lies} that of target {other.name!r}: one would list and remove "
            "files of the other",
            remedy="use a folder or prefix beside it",
        )


def _place(kind: str, settings: Mapping[str, Any]) -> _Place:
    """The place of a target; links are followed, as far as this machine has them."""
    address = _address(settings)
    try:
        target = find_kind(kind)
        place: object = target.place(address)
    except Refused:  # of another version
        return _Place(address)
    if isinstance(place, Path):
        return _Place(Path, Path(os.path.realpath(place)).parts)  # of a loop of links, itself
    if isinstance(place, Server):
        folder = _parts(posixpath.normpath(place.path))
        # a receiver of messages has no folders: each path is another
        return (
            _Place(_service(place), folder)
            if target.gives_back
            else _Place((_service(place), folder))
        )
    if isinstance(place, S3Address):
        at = place.endpoint_url and _service(server(place.endpoint_url, "http", "https"))
        return _Place((place.bucket, at), _parts(place.prefix))
    return _Place(str(place).lower())  # a repository of the hub


def _address(settings: Mapping[str, Any]) -> str:
    address = settings.get("address")
    if not isinstance(address, str):
        raise BadRecord(
            f"the record holds {address!r:.80} where the address of a target belongs",
            remedy="it was damaged or edited: remove the target and add it again",
        )
    return address


def _service(place: Server) -> Hashable:
    return place.scheme, place.host.lower(), place.port or PORTS.get(place.scheme)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part)


def check_target(services: Services, name: str) -> str:
    """Put something at a target and take it down again; return where that was.

    Raises what publishing there would: `Unreachable`, `SecretMissing`, `MissingPackage`.
    """
    with services.database.read() as session:
        row = targets.get(session, name)
    with open_target(row.kind, row.settings, row.secrets) as target:
        target.check()
        return str(target)


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings from `key=value`: JSON if it parses, else the text. No error repeats a value."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise Refused("--set: expected KEY=VALUE")
        if key in found or key == "address":
            raise Refused(f"--set {key} was given twice")
        try:
            found[key] = from_json(value)
        except (ValueError, TypeError):  # the latter: of what is not UTF-8
            found[key] = value
    return found


def _with_profile(settings: TargetSettings) -> TargetSettings:
    """Settings whose profile of marks is known: a built-in one, or that of a file by its name."""
    if settings.marks is None:
        return settings
    known = looked_up(Profile(name=settings.marks)).name
    return settings.model_copy(update={"marks": known})


def _absolute(address: str) -> str:
    """The address; of a folder by its path, the whole path, for workers that are elsewhere."""
    is_path = address and "://" not in address  # an empty one is not this folder: it is refused
    return str(Path(address).absolute()) if is_path else address


def settings_of(row: Target) -> dict[str, Any]:
    """All settings of a target, defaults included. Raises `BadRecord` if it has no address."""
    _address(row.settings)
    try:
        parsed = find_kind(row.kind).parse(row.settings)
    except Refused:  # of another version
        return dict(row.settings)
    found: dict[str, Any] = parsed.model_dump(mode="json")
    return found
