"""Secrets of targets: the record says where each one is, `env:VARIABLE` or `file:/path`.

No message repeats what was given: somebody may have written the secret itself.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from stat import S_ISREG

from db.causes import Cause
from db.errors import GenmillError, Refused
from worker.environment import variable

FORMS = "write NAME=env:VARIABLE or NAME=file:/path: a secret itself is never stored"
MAX_BYTES = 64 << 10

_PLACE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]{0,199}|file:/[^\0\n]{1,1000}")


class SecretMissing(GenmillError):
    """A secret is not where the target says, on this machine."""

    cause = Cause.MACHINE
    lasting = True


def parse_places(pairs: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Where secrets are, from `password=env:VARIABLE`; `known` are those of the kind of target.

    Raises `Refused`.
    """
    places: dict[str, str] = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]{1,40}", name):
            raise Refused("--secret: expected NAME=PLACE", remedy=FORMS)
        if name not in known:
            raise Refused.unknown("secret", name, known, of="this kind of target")
        if not _PLACE.fullmatch(place):
            raise Refused(f"--secret {name} does not say where the secret is", remedy=FORMS)
        if name in places:
            raise Refused(f"--secret {name} was given twice")
        places[name] = place
    return places


def read_secrets(places: Mapping[str, str]) -> dict[str, str]:
    """The secrets themselves, by name; for use, never to be shown. Raises `SecretMissing`."""
    return {name: _read(name, place) for name, place in places.items()}


def _read(name: str, place: str) -> str:
    kind, _, where = place.partition(":")
    found = variable(where) if kind == "env" else _content(name, Path(where))
    if not found:
        what = f"the variable {where} is" if kind == "env" else f"the file {where} is"
        raise SecretMissing(
            f"the target's {name} is missing: {what} empty or not there",
            remedy="set it where workers and the scheduler run",
        )
    return found


def _content(name: str, path: Path) -> str:
    why = "it is not a file"  # nobody may ever write into a pipe
    try:
        if S_ISREG(path.stat().st_mode):
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) <= MAX_BYTES:
                return data.decode().strip("\r\n")
            why = f"it is larger than {MAX_BYTES} bytes"
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or "") if isinstance(error, OSError) else "it is not UTF-8"
    raise SecretMissing(
        f"the target's {name} cannot be read from {path}: {why}",
        remedy="make it readable where workers and the scheduler run",
    )
