"""Adding, removing and checking targets."""

import posixpath
from collections.abc import Hashable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from sqlalchemy.orm import Session

from db import audit_trail, jobs, publications, published, targets
from db.errors import Refused
from db.publications import THERE
from db.tables import Target
from worker.identity import who
from worker.mark_profile import Profile
from worker.marks.profiles import looked_up
from worker.publishing import find_kind, open_target
from worker.publishing.access.addresses import Server
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
    and for the address of another target.
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


def _refuse_shared(session: Session, name: str, place: Hashable) -> None:
    """Raise `Refused` if another target is there: what one takes down is the other's too."""
    for other in targets.listing(session):
        if other.name != name and place == _place(other.kind, other.settings):
            raise Refused(
                f"target {other.name!r} has this address already: what is taken down at one would "
                "be gone from the other",
                remedy=f"use {other.name!r}, or another folder or prefix",
            )


def _place(kind: str, settings: Mapping[str, Any]) -> Hashable:
    """What is the same for targets that put items at the same place, of whichever kind."""
    try:
        place: object = find_kind(kind).place(str(settings["address"]))
    except Refused:  # of another version
        return str(settings["address"])
    if isinstance(place, Path):
        return place.resolve()
    if isinstance(place, Server):
        path = posixpath.normpath(place.path).lstrip("/")
        return place.scheme, place.host.lower(), place.port or PORTS.get(place.scheme), path
    if isinstance(place, S3Address):
        return place.bucket, place.prefix.strip("/"), place.endpoint_url
    return place if isinstance(place, Hashable) else str(place)


def remove_target(services: Services, name: str, *, abandon: bool) -> int:
    """Remove a target; how many items stay there, to be followed no more.

    Raises `Refused` while a job that has not ended publishes there, and, without `abandon`, while
    items are there.
    """

    def work(session: Session) -> int:
        target = targets.get(session, name)
        for job in jobs.unfinished(session, kind="publish", limit=1000):
            if job.spec["target"] == name:
                raise Refused(f"job {job.id} is {job.status}, and publishes at {name!r}")
        states = published.by_state(session, target.id)
        there = [f"{states[each]:,} items are {each}" for each in THERE if each in states]
        if there and not abandon:
            raise Refused(
                f"{' and '.join(reversed(there))} at {name!r}",
                remedy=f"take them down with `genmill publish JOB --target {name} --take-down`, "
                "or give --abandon to leave them there and follow them no more",
            )
        left = publications.abandon(session, target.id)
        targets.remove(session, target)
        audit_trail.note(session, who(), "removed a target", name, {"abandoned": left})
        return left

    return services.database.transact(work)


def check_target(services: Services, name: str) -> str:
    """Put something at a target and take it down again; where that is.

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
        except ValueError:
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
    return address if "://" in address else str(Path(address).absolute())


def settings_of(row: Target) -> dict[str, Any]:
    """All settings of a target, those that were not given too."""
    try:
        parsed = find_kind(row.kind).parse(row.settings)
    except Refused:  # of another version
        return dict(row.settings)
    found: dict[str, Any] = parsed.model_dump(mode="json")
    return found
