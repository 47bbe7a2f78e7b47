"""The trust bundle: what strangers need to verify what an installation has made, and no secret.

One JSON file: certificates, public keys, ids, and which keys were rotated or revoked. It holds no
names of tenants. Watermarks are found with secrets alone, so of their keys only the ids are there.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from db.errors import BadInput
from db.keys import Purpose
from db.path_errors import read_whole, reading, shown
from worker.files import atomic_write, disk_errors
from worker.keys.keyring import HeldKey, Keyring

FORMAT = "genmill-trust-1"
NAME, ANCHORS = "trust.json", "authorities.pem"
MAX_BYTES = 16 << 20


class _Key(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
    purpose: Purpose
    public: str | None = None
    created_at: AwareDatetime
    rotated_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    reason: str | None = None


class _Bundle(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal["genmill-trust-1"]
    keys: tuple[_Key, ...]


def export_bundle(keyring: Keyring, path: Path) -> list[Path]:
    """Write the bundle into a `.json` file, or into a folder; return the files.

    The folder gets the certificates and the public keys of the ledger on their own as well, as
    other programs take them: they know of no revocation, so those of revoked keys are left out.
    """
    text = json.dumps(bundle(keyring), indent=2, ensure_ascii=False) + "\n"
    if path.suffix == ".json":
        files = {path: text}
    else:
        files = {path / NAME: text, path / ANCHORS: keyring.live_anchors}
        files |= {
            path / f"ledger-{key.id}.pem": key.public
            for key in keyring.all(Purpose.HEAD)
            if key.public and key.revoked_at is None
        }
    for each, content in files.items():
        with disk_errors(each.parent), atomic_write(each) as file:
            file.write(content.encode())
    return list(files)


def bundle(keyring: Keyring) -> dict[str, Any]:
    """The bundle as plain data."""
    return {
        "format": FORMAT,
        "exported_at": _iso(datetime.now(UTC)),
        "keys": [_public(key) for key in keyring.keys],
    }


def read_bundle(path: Path) -> Keyring:
    """The keyring of a bundle, a file or the folder that it is in. Raises `BadInput`."""
    with reading(path):
        path = path / NAME if path.is_dir() else path
    data = read_whole(path, "a trust bundle", limit_bytes=MAX_BYTES, piped=True, remedy=_REMEDY)
    return parse_bundle(data, shown(path))


def parse_bundle(data: bytes, source: str) -> Keyring:
    """The keyring of a bundle's bytes; `BadInput` about `source` if they are none."""
    try:
        found = _Bundle.model_validate_json(data)
        keys = tuple(HeldKey(tenant="", **dict(each)) for each in found.keys)
        ring = Keyring(keys)
        _ = ring.anchors, [key.serial for key in keys]  # refuse now what is not PEM
    except (ValidationError, BadInput):
        raise BadInput(f"{source} is no trust bundle of Genmill", remedy=_REMEDY) from None
    return ring


_REMEDY = "`genmill key export` writes one"


def _public(key: HeldKey) -> Mapping[str, Any]:
    times = {"created_at": key.created_at, "rotated_at": key.rotated_at}
    times |= {"revoked_at": key.revoked_at}
    return {
        "id": key.id,
        "purpose": key.purpose.value,
        "public": key.public,
        **{name: at and _iso(at) for name, at in times.items()},
        "reason": key.reason,
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
