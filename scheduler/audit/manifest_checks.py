"""5. The manifest of a succeeded job is in the store, and tells what the record does."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from db.errors import BadRecord
from scheduler.audit.byte_checks import Objects
from scheduler.audit.history import Row
from scheduler.audit.objects import PAGE, Named, Snapshot, blob_key, is_named, pack_key
from scheduler.audit.readable import readable
from scheduler.audit.record import TABLES
from scheduler.audit.violations import Violation, Violations
from scheduler.results.threads import in_order
from worker.files import canonical_json
from worker.services import prompts

COLUMNS = (
    *("kind", "name", "key", "sha256", "size", "media_type", "pack", "pack_offset"),
    *("members_sha256", "marks"),
)


class Listing(NamedTuple):
    """What a job's manifest must list: the number of artifacts and a digest over them."""

    artifacts: int
    digest: bytes


def manifests_match(snapshot: Snapshot, objects: Objects) -> Violations:
    """Every manifest that is missing, damaged or lists something else."""
    for job_id, found in in_order(partial(_check, objects), _succeeded(snapshot)):
        if found and is_named(snapshot, Named("", "jobs", job_id)):  # not removed meanwhile
            yield from found


def _succeeded(snapshot: Snapshot) -> Iterator[tuple[Row, Listing | BadRecord]]:
    """Succeeded jobs with the listing that follows from their rows, or why these are unreadable."""
    jobs, last = TABLES["jobs"], ""
    while True:
        page = select(jobs.c.id).where(jobs.c.id > last, jobs.c.status == "succeeded")
        with snapshot() as connection:
            ids = connection.scalars(page.order_by(jobs.c.id).limit(PAGE)).all()
            found = list(readable(partial(_read, connection), ids))
        for some, rows in found:
            yield from [({"id": some[0]}, rows)] if isinstance(rows, BadRecord) else rows
        if len(ids) < PAGE:
            return
        last = ids[-1]


def _read(connection: Connection, ids: Sequence[str]) -> list[tuple[Row, Listing]]:
    jobs, nothing = TABLES["jobs"], _listing([])
    names = ("id", "manifest_key", "manifest_pack", "manifest_offset", "manifest_size")
    about = ("manifest_sha256", "kind", "spec", "spec_hash")
    rows = select(*(jobs.c[name] for name in (*names, *about))).where(jobs.c.id.in_(ids))
    found = connection.execute(rows.order_by(jobs.c.id)).mappings().all()
    listed = dict(_listings(connection, ids))
    return [(row, listed.get(row["id"], nothing)) for row in found]


def _listings(connection: Connection, job_ids: Sequence[str]) -> Iterator[tuple[str, Listing]]:
    artifacts, shards = TABLES["artifacts"], TABLES["shards"]
    of_shard = (shards.c.job_id, shards.c.idx, (shards.c.stop - shards.c.start).label("samples"))
    made = select(*of_shard, *(artifacts.c[name] for name in COLUMNS))
    made = made.join(shards, shards.c.id == artifacts.c.shard_id)
    made = made.where(shards.c.job_id.in_(job_ids)).order_by(shards.c.job_id, shards.c.idx)
    with connection.execute(made.execution_options(yield_per=1000)) as streamed:
        for job_id, rows in groupby(streamed, key=lambda row: row.job_id):
            yield job_id, _listing(map(_entry, rows))


def _entry(row: Any) -> dict[str, Any]:
    """What a manifest lists of an artifact."""
    entry = {name: getattr(row, name) for name in ("kind", "name", "sha256", "size", "media_type")}
    entry |= {"shard": row.idx, "key": row.key or blob_key(row.job_id, row.sha256)}
    if row.pack is not None:
        entry |= {"key": pack_key(row.pack), "offset": row.pack_offset}
    if row.marks:
        entry["marks"] = row.marks
    if row.members_sha256:
        entry["members"] = {"count": row.samples, "sha256": row.members_sha256}
    return entry


def _listing(entries: Iterable[dict[str, Any]]) -> Listing:
    """A digest over the entries, which come in the order of their shards."""
    count, digest = 0, hashlib.sha256()
    for _, some in groupby(entries, key=lambda entry: entry["shard"]):
        # here, because databases sort names in ways of their own
        for entry in sorted(some, key=lambda entry: str(entry["name"])):
            count += 1
            digest.update(canonical_json(entry) + b"\n")
    return Listing(count, digest.digest())


def _check(
    objects: Objects, job_and_listing: tuple[Row, Listing | BadRecord]
) -> tuple[str, list[Violation]]:
    job, listing = job_and_listing
    if isinstance(listing, BadRecord):
        text = f"job {job['id']}, or one of its artifacts, was changed: {listing.message}"
        return job["id"], [Violation(text)]
    return job["id"], _check_manifest(objects, job, listing)


def _check_manifest(objects: Objects, job: Row, listing: Listing) -> list[Violation]:
    number = job["manifest_pack"]
    key = (job["manifest_key"] or "") if number is None else pack_key(number)
    data = objects.read_manifest(job)
    if data is None or hashlib.sha256(data).hexdigest() != job["manifest_sha256"]:
        text = f"the manifest of job {job['id']} is missing or differs from its digest"
        return [Violation(text, "jobs", job["id"], key)]
    manifest = json.loads(data)
    entries = manifest["artifacts"]
    listed = _listing(sorted(entries, key=lambda entry: entry["shard"]))
    found = []
    if listed != listing:
        found.append(Violation(f"the manifest of job {job['id']} does not list its artifacts"))
    if (manifest["kind"], manifest["spec_sha256"]) != (job["kind"], job["spec_hash"]):
        found.append(Violation(f"the manifest of job {job['id']} is of another kind or spec"))
    if _spec_hash(objects, job["spec"]) != job["spec_hash"]:
        lost = ", or its prompts are missing or damaged" if prompts.SHA256 in job["spec"] else ""
        found.append(Violation(f"the spec of job {job['id']} differs from its digest{lost}"))
    return found


def _spec_hash(objects: Objects, spec: dict[str, Any]) -> str:
    """The digest of a whole spec, whose long prompts are in the store; "" if they are not."""
    if isinstance(sha256 := spec.get(prompts.SHA256), str):
        data = objects.read(f"{prompts.PREFIX}/{sha256}") or b""
        if hashlib.sha256(data).hexdigest() != sha256:
            return ""
        spec = prompts.with_prompts(spec, json.loads(data))
    return hashlib.sha256(canonical_json(spec)).hexdigest()
