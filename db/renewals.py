"""Renewals: one statement extends all leases of a process, and tells which are still held."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, select, text
from sqlalchemy.orm import Session

from db.claims import Claim, ending
from db.columns import Id, UtcDateTime, id_bytes
from db.errors import Cancelled, LeaseLost
from db.session import clock
from db.tables import Job, Shard


@dataclass(frozen=True)
class Beat:
    """One lease's part of a heartbeat: its fence, and the worker's counter and progress report."""

    fence: int
    seq: int = 0
    report: dict[str, Any] | None = None


def renew_all(
    session: Session, owner: str, beats: Mapping[str, Beat], *, lease_s: float
) -> set[str]:
    """Extend leases of worker boot `owner`, by shard id, in one statement; return those renewed.

    Locks no job and waits for no lock. For the others `over` tells why: their claim is over, or
    another transaction has the shard locked just now.
    """
    if not beats:
        return set()
    if session.get_bind().dialect.name == "sqlite":
        until = clock(session) + timedelta(seconds=lease_s)
        return set(session.scalars(_RENEW_SQLITE.bindparams(until=until), _json(owner, beats)))
    return set(session.scalars(_RENEW, _arrays(owner, beats, lease_s)))


def over(session: Session, claim: Claim) -> Cancelled | LeaseLost | None:
    """Why a claim is over; None if it is not, as far as committed transactions tell."""
    statement = select(Shard.status, Shard.fence, Shard.owner, Job.status.label("job_status"))
    found = session.execute(statement.join(Job).where(Shard.id == claim.shard_id)).one_or_none()
    if found is None:
        return LeaseLost(f"shard {claim.shard_id} is no longer on record")
    return ending(claim, found.job_status, found)


def _arrays(owner: str, beats: Mapping[str, Beat], lease_s: float) -> dict[str, object]:
    return {
        "owner": owner,
        "lease_s": lease_s,
        "ids": [id_bytes(key) for key in beats],
        "fences": [beat.fence for beat in beats.values()],
        "seqs": [beat.seq for beat in beats.values()],
        "reports": [beat.report and json.dumps(beat.report) for beat in beats.values()],
    }


def _json(owner: str, beats: Mapping[str, Beat]) -> dict[str, object]:
    rows = [[key, beat.fence, beat.seq, beat.report] for key, beat in beats.items()]
    return {"owner": owner, "beats": json.dumps(rows)}


_OWNER = bindparam("owner", type_=Id)
_SQLITE = text("""
UPDATE shards SET
    lease_until = :until,
    heartbeat_seq = json_extract(beat.value, '$[2]'),
    report = coalesce(json_extract(beat.value, '$[3]'), report)
FROM json_each(:beats) AS beat
WHERE shards.id = id_bytes(json_extract(beat.value, '$[0]'))
    AND shards.fence = json_extract(beat.value, '$[1]')
    AND shards.status = 'running' AND shards.owner = :owner
RETURNING shards.id
""").bindparams(bindparam("until", type_=UtcDateTime), _OWNER)
_RENEW_SQLITE = _SQLITE.columns(id=Id)
# locks in no order, hence SKIP LOCKED
_POSTGRESQL = text("""
UPDATE shards SET
    lease_until = clock_timestamp() + make_interval(secs => :lease_s),
    heartbeat_seq = beat.seq,
    report = coalesce(beat.report, shards.report)
FROM (
    SELECT held.id, beats.seq, beats.report
    FROM unnest(
        CAST(:ids AS bytea[]), CAST(:fences AS int[]), CAST(:seqs AS bigint[]),
        CAST(:reports AS jsonb[])
    ) AS beats (id, fence, seq, report)
    JOIN shards AS held ON held.id = beats.id AND held.fence = beats.fence
    WHERE held.status = 'running' AND held.owner = :owner
    FOR NO KEY UPDATE OF held SKIP LOCKED
) AS beat
WHERE shards.id = beat.id
RETURNING shards.id
""").bindparams(_OWNER)
_RENEW = _POSTGRESQL.columns(id=Id)
