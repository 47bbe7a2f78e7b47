"""The auditor: reads the record, the store and the broker by itself, and tells what is wrong.

A step that was not seen is found by its traces: if it was out of turn, it leaves a time, a fence or
a count that does not fit. Memory stays flat: jobs are read a page at a time.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import redis
from sqlalchemy import Connection, select

from db import own_store
from db.errors import GenmillError
from scheduler.audit.byte_checks import Objects, bytes_match
from scheduler.audit.job_checks import Tally, check_job
from scheduler.audit.ledger_checks import ledger_is_whole
from scheduler.audit.manifest_checks import manifests_match
from scheduler.audit.readable import as_far_as_readable
from scheduler.audit.record import FINAL, TABLES, ShardView, Unreadable, clock, pages
from scheduler.audit.reference_checks import references_lead_somewhere
from scheduler.audit.shard_checks import check_shard
from scheduler.audit.violations import OWN_STORE, Bounds, Violation, Violations
from scheduler.results.heads import Head
from worker.services import Services
from worker.store.base import SENTINEL

MANY_DOORBELLS = 1000  # Redis is a doorbell, not a queue
READ_DOORBELLS = 2 * MANY_DOORBELLS
QUEUE = "genmill:genmill"
RESTART_S = 60.0  # to notice and start again a process that was killed
LONGEST_LEASE_S = 3600.0  # that another worker's settings may give
LONGEST_PAUSE_S = 3600.0

Message = tuple[Any, Any]  # content type and body


def usual_bounds(services: Services, connection: Connection, now: datetime) -> Bounds:
    """Bounds for a system with these settings, whose other workers may have somewhat longer ones.

    While no worker is live, what waits is not forgotten.
    """
    settings = services.settings
    grace_s = settings.lease_s + settings.deadline_s + 2 * settings.loop_s + RESTART_S
    workers = TABLES["workers"]
    live = select(workers.c.boot_id).where(
        workers.c.stopped_at.is_(None),
        workers.c.heartbeat_at > now - timedelta(seconds=settings.lease_s),
        # one that has just started could not see to everything yet
        workers.c.started_at < now - timedelta(seconds=grace_s),
    )
    return Bounds(
        timedelta(seconds=grace_s),
        timedelta(seconds=max(LONGEST_LEASE_S, 2 * settings.lease_s)),
        timedelta(seconds=LONGEST_PAUSE_S),
        max_claims=settings.max_claims,
        workers_live=connection.execute(live.limit(1)).first() is not None,
    )


class Auditor:
    """Audits the whole system. With `bounds`, these hold in place of the usual ones."""

    def __init__(self, services: Services, *, bounds: Bounds | None = None) -> None:
        self.services = services
        self.objects = Objects(services.store)
        self.bounds = bounds

    def violations(self, outside: Sequence[Head] = ()) -> Violations:
        """Every violation found now, also against heads of the ledger that were kept `outside`.

        Raises `Unreachable` if the database or store is away.
        """
        with self.services.database.snapshot() as connection:
            now = clock(connection)
            bounds = self.bounds or usual_bounds(self.services, connection, now)
            yield from as_far_as_readable(self.check_record(connection, now, bounds))
            yield from as_far_as_readable(ledger_is_whole(connection, outside))
            yield from doorbells_say_ids_only(connection, self._doorbells())
        if self.services.store.read_sentinel() is None:
            if self._is_store_unused():
                return
            yield Violation(
                f"the object store {self.services.store} is not mounted, or not the one of this "
                f"record: its object {SENTINEL!r} is missing, and nothing else in it was checked",
                table=OWN_STORE,
            )
            return
        self.services.store.verify()
        snapshot = self.services.database.snapshot
        yield from as_far_as_readable(manifests_match(snapshot, self.objects))
        yield from as_far_as_readable(bytes_match(snapshot, self.objects))

    def ledger_violations(self, outside: Sequence[Head] = ()) -> Violations:
        """What was changed behind the ledger's back, also against heads kept `outside`."""
        with self.services.database.snapshot() as connection:
            yield from as_far_as_readable(ledger_is_whole(connection, outside))
        self.services.store.verify()
        snapshot = self.services.database.snapshot
        yield from as_far_as_readable(manifests_match(snapshot, self.objects))

    def check_record(self, connection: Connection, now: datetime, bounds: Bounds) -> Violations:
        """What the record alone shows."""
        yield from references_lead_somewhere(connection)
        waiting = Waiting(bounds, _incomplete_batches(connection))
        for page in pages(connection):
            tallies = {job_id: Tally() for job_id in page.jobs}
            yield from (each.violation for each in page.unreadable)
            in_part = set[str]()
            for view in page.shards:
                if isinstance(view, Unreadable):
                    in_part.add(view.job_id)
                    yield view.violation
                    continue
                history = page.jobs[view.row["job_id"]].has_history
                yield from check_shard(view, now, bounds, has_history=history)
                yield from tallies[view.row["job_id"]].add(view)
                waiting.add(view, now)
                self.see(view)
            for job_id, job in page.jobs.items():
                if job_id not in in_part:
                    yield from check_job(job, tallies[job_id], now, bounds)
        yield from waiting.forgotten(now)

    def _is_store_unused(self) -> bool:
        """Whether the record knows no store, and nothing that would be in one."""
        with self.services.database.read() as session:
            known = own_store.expected(session)
            return (known is None or not known.made) and not own_store.some_keys(session)

    def see(self, view: ShardView) -> None:
        """Called with every shard that is read, for auditors that remember some."""

    def _doorbells(self) -> list[Message]:
        """The messages in the broker; none if it is down or not known."""
        with suppress(redis.RedisError, GenmillError):
            return list(read_doorbells(self.services.settings.broker_client))
        return []


class Waiting:
    """9. The shards that wait longer than they should, while nobody rings or works."""

    def __init__(self, bounds: Bounds, incomplete: set[str]) -> None:
        self.bounds = bounds
        self.incomplete = incomplete  # batches, whose jobs must not run yet
        self.count = 0
        self.sign: datetime | None = None

    def add(self, view: ShardView, now: datetime) -> None:
        """Look at a shard."""
        row, job = view.row, view.job
        signs = [attempt["started_at"] for attempt in view.attempts]
        waits = row["status"] == "queued" and job["status"] not in FINAL
        may_run = waits and job["batch_id"] not in self.incomplete
        if may_run and row["not_before"] < now - self.bounds.grace:
            self.count += 1
            signs.append(row["dispatched_at"] or row["not_before"])
        for sign in filter(None, signs):
            self.sign = max(self.sign or sign, sign)

    def forgotten(self, now: datetime) -> Violations:
        """The violation, if the waiting shards were neglected."""
        since = now - self.bounds.grace
        if self.bounds.workers_live and self.count and self.sign is not None and self.sign < since:
            yield Violation(
                f"{self.count} shards wait, and nobody has rung or worked since {self.sign}"
            )


def doorbells_say_ids_only(connection: Connection, messages: list[Message]) -> Violations:
    """Every message is JSON with a shard's id and nothing else, and there are never many."""
    if len(messages) > MANY_DOORBELLS:
        yield Violation(f"Redis holds {len(messages)} messages or more")
    shards = TABLES["shards"]
    for content_type, body in messages:
        words = list(map(str, body[0])) if _is_call(body) else []
        ours = select(shards.c.id).where(shards.c.id.in_(words)).limit(1)
        if not words or connection.execute(ours).first() is None:
            continue
        if content_type != "application/json" or len(body[0]) != 1 or body[1]:
            yield Violation(f"a doorbell says more than an id: {body}")


def read_doorbells(url: str) -> Iterator[Message]:
    """Content type and body of the messages that wait in Redis."""
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        waiting: Any = client.lrange(QUEUE, 0, READ_DOORBELLS)
    for message in map(_parsed, waiting):
        body = message.get("body") if isinstance(message, dict) else None
        if isinstance(body, str):
            with suppress(binascii.Error):
                yield message.get("content-type"), _parsed(base64.b64decode(body))


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None  # garbage


def _is_call(body: Any) -> bool:
    return isinstance(body, list) and len(body) > 1 and isinstance(body[0], list)


def _incomplete_batches(connection: Connection) -> set[str]:
    table = TABLES["batches"]
    return set(connection.scalars(select(table.c.id).where(table.c.complete_at.is_(None))))
