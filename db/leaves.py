"""What the ledger says: the text of a leaf, what it repeats of which row, and of a tree's head.

These bytes are hashed and signed: whoever changes how they are written invalidates every proof.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from db.columns import storable

MANIFEST = "manifest"
PROMOTION = "promotion"
WITHDRAWAL = "withdrawal"
REMOVAL = "removal"
AUDIT = "audit"
KEY = "key"
PUBLICATION = "publication"
TARGET = "target"
MODEL = "model"
MODEL_VERSION = "model version"
DATASET = "dataset"
DATASET_VERSION = "dataset version"
EVALUATION = "evaluation"

ORIGIN = "genmill/{}"  # names a ledger in its heads


@dataclass(frozen=True)
class Source:
    """A kind of leaf: the table whose rows it repeats, and which of their columns.

    Leaves of before a version of Genmill lack the fields in `later`. New rows with one value of a
    column need no leaf yet: `but` names both.
    """

    table: str
    fields: tuple[str, ...]
    later: tuple[str, ...] = ()
    but: tuple[str, str] | None = None


# A new kind needs a line here, `ledger.enter` wherever these columns of its rows are written, and a
# migration for the rows on record. Fields cannot be changed once there are leaves with them.
SOURCES = {
    MANIFEST: Source("jobs", ("manifest_sha256",)),
    PROMOTION: Source(
        "promotions",
        (
            "model_id",
            "alias",
            "outcome",
            "version_id",
            "previous_id",
            "who",
            "why",
            "verdict",
            "at",
        ),
        later=("job_id",),
    ),
    WITHDRAWAL: Source("withdrawals", ("dataset_id", "digest", "who", "reason", "at")),
    REMOVAL: Source(
        "tombstones", ("kind", "name", "who", "at"), later=("about",), but=("kind", "artifact")
    ),
    AUDIT: Source("audit_entries", ("at", "who", "action", "subject", "detail")),
    PUBLICATION: Source(
        "publications",
        (
            *("target_id", "item", "job_id", "sample", "version_id", "sha256", "marks", "state"),
            *("remote_id", "marks_verified", "published_at", "taken_down_at"),
        ),
        later=("size", "media_type", "reason", "expires_at"),
        but=("state", "begun"),
    ),
    TARGET: Source(
        "targets",
        (
            *("name", "kind", "settings", "secrets", "expires_after_s", "who", "created_at"),
            "removed_at",
        ),
    ),
    MODEL: Source("models", ("name", "family", "marks")),
    MODEL_VERSION: Source(
        "model_versions",
        (
            *("model_id", "number", "parent_id", "dataset_version_id", "job_id", "params"),
            *("format", "made_by", "files", "weights_sha256", "metrics", "card", "created_at"),
        ),
    ),
    DATASET: Source("datasets", ("name",)),
    DATASET_VERSION: Source(
        "dataset_versions",
        (
            *("dataset_id", "number", "kind", "manifest_key", "manifest_sha256", "summary"),
            *("created_at", "removed_at"),
        ),
    ),
    EVALUATION: Source(
        "evaluations",
        (
            *("version_id", "dataset_version_id", "job_id", "protocol", "protocol_sha256"),
            *("numbers", "items_key", "items_sha256", "created_at"),
        ),
    ),
    KEY: Source(
        "keys",
        ("purpose", "tenant", "public", "created_at", "rotated_at", "revoked_at", "reason"),
    ),
}


def row_data(kind: str, row: Any) -> dict[str, Any]:
    """What a leaf of this kind repeats of a row, which is a mapping or an object."""
    fields = SOURCES[kind].fields + SOURCES[kind].later
    if isinstance(row, Mapping):
        return {name: row[name] for name in fields}
    return {name: getattr(row, name) for name in fields}


def leaf_text(kind: str, subject: str, data: Mapping[str, Any]) -> str:
    """A leaf: canonical JSON in ASCII. Data are empty where the row was deleted again."""
    leaf = {"kind": kind, "subject": subject, "data": plain(data)}
    return json.dumps(leaf, sort_keys=True, separators=(",", ":"), allow_nan=False)


def head_text(ledger_id: str, size: int, root: bytes, at: datetime) -> str:
    """What is signed of a head: the text of a C2SP checkpoint, with the time as its extension."""
    lines = (ORIGIN.format(ledger_id), size, base64.b64encode(root).decode(), plain(at))
    return "".join(f"{line}\n" for line in lines)


def plain(value: Any) -> Any:
    """Plain data as every database gives them back."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)  # JSON has no such number
    if isinstance(value, float):
        return int(value) if value.is_integer() else value  # PostgreSQL's JSON knows no difference
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
