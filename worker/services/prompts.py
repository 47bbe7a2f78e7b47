"""Long prompts of generate jobs: one object in the store, which a job's row names by its digest.

The row keeps the rest of the spec, and so stays small however many prompts there are. The object is
stored before the row, and jobs with equal prompts share it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from db.errors import DigestMismatch
from worker.files import canonical_json
from worker.specs import Generate, Prompt, Spec, parse_recorded
from worker.store.base import ObjectStore

PREFIX = "prompts/blobs"
MAX_BYTES_IN_ROW = 4096  # of prompts as JSON
SHA256, COUNT = "prompts_sha256", "prompts_count"  # in the row, in place of `prompts`


def encode(prompts: Sequence[Prompt]) -> bytes:
    """Prompts as canonical JSON."""
    return canonical_json([prompt.model_dump(mode="json") for prompt in prompts])


def digest(prompts: Sequence[Prompt]) -> str:
    """The SHA-256 that names prompts."""
    return hashlib.sha256(encode(prompts)).hexdigest()


def store_prompts(store: ObjectStore, spec: Spec) -> None:
    """Store a request's prompts if they are long. Do it before its row is inserted."""
    if data := _long_prompts(spec):
        store.put_bytes(PREFIX, data)


def row_of(spec: Spec, data: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """What a job's row keeps of a pinned spec's `data`, and the digest of long prompts."""
    prompts = _long_prompts(spec)
    if prompts is None:
        return dict(data), None
    sha256 = hashlib.sha256(prompts).hexdigest()
    kept = {key: value for key, value in data.items() if key != "prompts"}
    return kept | {SHA256: sha256, COUNT: len(data["prompts"])}, sha256


def with_prompts(row: Mapping[str, Any], prompts: Sequence[Any]) -> dict[str, Any]:
    """The spec of a row that names its prompts, with `prompts` in place of the name."""
    kept = {key: value for key, value in row.items() if key not in {SHA256, COUNT}}
    return kept | {"prompts": list(prompts)}


def load_spec(store: ObjectStore, row: Mapping[str, Any]) -> Spec:
    """The whole spec of a job's row.

    Raises as the store does and as `parse_recorded`, and `DigestMismatch`.
    """
    if SHA256 not in row:
        return parse_recorded(row)
    return parse_recorded(with_prompts(row, _load(store, row[SHA256])))


def load_data(store: ObjectStore, row: Mapping[str, Any]) -> dict[str, Any]:
    """The whole spec of a job's row as plain data, for people to read."""
    if SHA256 not in row:
        return dict(row)
    prompts = _load(store, row[SHA256])
    return with_prompts(row, [prompt.model_dump(mode="json") for prompt in prompts])


def _long_prompts(spec: Spec) -> bytes | None:
    if not isinstance(spec, Generate) or not spec.prompts:
        return None
    data = encode(spec.prompts)
    return data if len(data) > MAX_BYTES_IN_ROW else None


@lru_cache(maxsize=4)
def _load(store: ObjectStore, sha256: str) -> tuple[Prompt, ...]:
    key = f"{PREFIX}/{sha256}"
    with store.open(key) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DigestMismatch(f"object {key} does not have the SHA-256 of its name")
    return tuple(Prompt.model_validate(each) for each in json.loads(data))
