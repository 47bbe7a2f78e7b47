"""Batches: many jobs from the lines of one JSON Lines file, all or none of them.

Every line is checked first. The jobs are then inserted in pieces, invisible until the last of them
is in; other writers get a turn in between.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import batches, jobs
from db.columns import new_id
from db.errors import GenmillError, Refused, Unreachable
from db.new_jobs import Piece, insert_piece, pieces
from db.tables import Batch
from scheduler.submission.batch_lines import Ignored, check_batch
from scheduler.submission.enqueue import refuse_wrong_broker, ring_or_warn
from scheduler.submission.idempotency import refuse_different
from scheduler.submission.judges import JudgeFolders
from scheduler.submission.pinning import Names
from scheduler.submission.receipts import OnStored, say_nothing, store_or_find, undivided
from scheduler.submission.requests import Columns, Request, Unchecked
from scheduler.submission.spool import Show, Spool, show_nothing, spooled
from worker.failpoints import reach
from worker.services import Services
from worker.services.prompts import store_prompts
from worker.specs import parse_key
from worker.watched import pulse

log = logging.getLogger(__name__)

ABANDONED_S = 60.0  # since the last piece was inserted
TRIES = 20  # to store a batch whose key others use, too
TURN_S = 0.02  # that other writers have between two pieces
POLL_S = 0.5
COMPARED_AT_ONCE = 1000  # jobs


def enqueue_batch(
    services: Services,
    lines: Iterable[str],
    *,
    priority: int = 0,
    idempotency_key: str | None = None,
    ignored: Ignored | None = None,
    show: Show = show_nothing,
    on_stored: OnStored = say_nothing,
) -> Batch:
    """Store one job per line under a new batch and ring; the same key returns the same batch.

    `ignored` counts as in `check_batch`. `on_stored` gets the batch's id before the ringing.

    Raises `Refused`, naming the wrong lines by number, before anything is stored, and if the key
    was used for other lines.
    """
    refuse_wrong_broker(services)
    if idempotency_key is not None:
        parse_key("idempotency key", idempotency_key)
    requests = check_batch(
        services,
        lines,
        ignored=ignored,
        judges=JudgeFolders(loading=True),
        priority=priority,
    )
    checked = _with_prompts_stored(services, requests)
    with spooled(checked, key=idempotency_key, show=show) as spool:
        batch = _known_batch(services, spool)
        if batch is not None:
            on_stored(batch.id)
        else:
            batch = _store(services, spool, show, on_stored)
    ring_or_warn(services)
    return batch


@contextmanager
def staged_batch(services: Services, lines: Iterable[str], columns: Columns) -> Iterator[str]:
    """Store the jobs of a new batch; yield its id, for the caller to complete (`db.batches`).

    `columns` are for lines without their own. If the batch is not complete at the end of the block,
    it is deleted. Raises as `enqueue_batch`.
    """
    checked = _with_prompts_stored(services, check_batch(services, lines, **columns))
    with spooled(checked) as spool, _staged(services, spool, show_nothing) as batch_id:
        yield batch_id


def discard(services: Services, batch_id: str, *, steps: int | None = None) -> int:
    """Delete jobs of an incomplete batch in small steps, and it with the last; return how many."""
    deleted, taken = 0, 0
    while (steps is None or taken < steps) and _is_incomplete(services, batch_id):
        deleted += services.database.transact(partial(batches.delete_some, batch_id=batch_id))
        taken += 1
        time.sleep(TURN_S)
    return deleted


def _is_incomplete(services: Services, batch_id: str) -> bool:
    with services.database.read() as session:
        return batches.is_incomplete(session, batch_id)


def _with_prompts_stored(
    services: Services, requests: Iterable[Request | Unchecked]
) -> Iterator[Request | Unchecked]:
    for request in requests:
        # if a later line is wrong, the prompts are garbage that a scheduler collects
        store_prompts(services.store, request.asked)
        pulse()
        yield request


def _known_batch(services: Services, spool: Spool) -> Batch | None:
    """The batch that was submitted under the spool's key. Raises `Refused` if its lines differ.

    Waits for a command that is submitting it now, and deletes what a killed one left.
    """
    warned = False
    while spool.key is not None:
        with services.database.read() as session:
            batch = _find_batch(session, spool.key)
            abandoned = batches.abandoned(session, ABANDONED_S)
        if batch is None:
            return None
        if batch.complete_at is not None:
            _refuse_other_lines(services, spool.key, spool, batch)
            return batch
        if batch.id in abandoned:
            discard(services, batch.id)
            continue
        if not warned:
            log.warning("another command is submitting idempotency key %r: waiting", spool.key)
            warned = True
        time.sleep(POLL_S)
    return None


def _find_batch(session: Session, key: str) -> Batch | None:
    first = jobs.by_idempotency_key(session, key)
    if first is None:
        return None
    if first.batch_id is None:
        raise Refused(
            f"idempotency key {key!r} belongs to a single job, {first.id}", remedy="use a new key"
        )
    return session.get_one(Batch, first.batch_id)


def _refuse_other_lines(services: Services, key: str, spool: Spool, batch: Batch) -> None:
    if batch.size != spool.count:
        raise Refused(
            f"idempotency key {key!r} belongs to batch {batch.id} of {batch.size} jobs, not "
            f"{spool.count}",
            remedy="use a new key",
        )
    asked, names, last = spool.asked(), Names(), ""
    for _ in range(0, spool.count, COMPARED_AT_ONCE):
        with services.database.read() as session:
            for job in batches.jobs_of(
                session, batch.id, after=last, limit=COMPARED_AT_ONCE, with_spec=True
            ):
                spec, spec_hash = next(asked)
                if spec_hash != job.spec_hash:
                    refuse_different(session, key, spec, job, names)
                last = job.id


def _store(services: Services, spool: Spool, show: Show, on_stored: OnStored) -> Batch:
    for _ in range(TRIES):
        try:
            with _staged(services, spool, show) as batch_id, undivided():
                batch = _complete(services, batch_id)
                on_stored(batch_id)
                return batch
        except IntegrityError:  # another command uses the same key
            known = _known_batch(services, spool)
            if known is not None:
                on_stored(known.id)
                return known
        time.sleep(POLL_S)  # that one has given up
    raise Unreachable(
        f"other commands use the key {spool.key!r}, and give up each time", remedy="try again"
    )


def _complete(services: Services, batch_id: str) -> Batch:
    """Make the batch visible; if the database went away meanwhile, look whether it is."""

    def find(session: Session) -> Batch | None:
        batch = session.get(Batch, batch_id)
        return batch if batch and batch.complete_at else None

    complete = partial(batches.complete, batch_id=batch_id)
    return store_or_find(services, complete, find, noun="batch", reference=batch_id)


@contextmanager
def _staged(services: Services, spool: Spool, show: Show) -> Iterator[str]:
    """Insert the spooled jobs; delete them unless the batch is complete at the end."""
    batch_id = new_id()
    stored, turn_until = 0, 0.0
    try:
        for piece in pieces(spool.jobs(), batch_id=batch_id):
            size = None if stored else spool.count
            time.sleep(max(0.0, turn_until - time.monotonic()))
            services.database.transact(partial(_insert, piece=piece, batch_id=batch_id, size=size))
            turn_until = time.monotonic() + TURN_S  # in which the next piece is built
            stored += len(piece.jobs)
            pulse()
            reach(services.settings, "batch_piece")
            show("jobs stored", stored, spool.count)
        yield batch_id
    except KeyboardInterrupt:
        if _discard_or_warn(services, batch_id):
            log.warning("interrupted: what was stored is deleted, nothing was enqueued")
        raise
    finally:
        _discard_or_warn(services, batch_id)


def _insert(session: Session, piece: Piece, batch_id: str, size: int | None) -> None:
    """Insert a piece of a batch, and before the first the batch of `size` jobs."""
    if size is not None:
        batches.add(session, size, batch_id)
    insert_piece(session, piece)


def _discard_or_warn(services: Services, batch_id: str) -> int:
    """Delete the batch unless it is complete; return how many jobs were deleted."""
    try:
        return discard(services, batch_id)
    except GenmillError as error:
        log.warning("what was stored of batch %s will be deleted later: %s", batch_id, error)
        return 0
