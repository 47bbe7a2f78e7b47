"""Batches: many jobs from the lines of one JSON Lines file, all or none of them.

A line is a spec, `{"kind": "generate", "model": "digits", "count": 8}`, with an optional
`custom_id` and `priority`; or, for text, a line of an OpenAI batch: `custom_id`, `method`, `url`,
`body`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import jobs
from db.errors import NotFound, Refused
from db.tables import Batch
from scheduler.submission.enqueue import Request, insert, prepare, ring_or_warn
from scheduler.submission.idempotency import refuse_different
from scheduler.submission.json_lines import parse_object
from worker.services import Services
from worker.services.prompts import store_prompts
from worker.specs import parse_key, parse_spec

MAX_JOBS = 50_000  # of one batch, as in OpenAI's
_SHOWN = 10  # wrong lines

_URLS = ("/v1/completions", "/v1/chat/completions")
_SAMPLING = ("max_tokens", "temperature", "top_p", "stop")
_BODY = {"model", "prompt", "messages", "n", "seed", *_SAMPLING}


def enqueue_batch(
    services: Services,
    lines: Iterable[str],
    *,
    priority: int = 0,
    idempotency_key: str | None = None,
) -> Batch:
    """Store one job per line under a new batch and ring; the same key returns the same batch.

    Raises `Refused`, naming the wrong lines by number, before anything is stored, and if the key
    was used for other lines.
    """
    if idempotency_key is not None:
        parse_key("idempotency key", idempotency_key)
    requests = check_batch(services, lines, priority=priority)

    for request in requests:
        store_prompts(services.store, request.pinned)

    def work(session: Session) -> Batch:
        first = idempotency_key and jobs.by_idempotency_key(session, idempotency_key)
        if not first:
            return insert_batch(session, requests, idempotency_key)
        if first.batch_id is None:
            raise Refused(
                f"idempotency key {idempotency_key!r} belongs to a single job, {first.id}",
                remedy="use a new key",
            )
        return jobs.get_batch(session, first.batch_id)

    try:
        batch = services.database.transact(work)
    except IntegrityError:  # another command has just used the same key
        batch = services.database.transact(work)
    if idempotency_key is not None:
        _refuse_other_lines(services, idempotency_key, batch, requests)
    ring_or_warn(services)
    return batch


def check_batch(services: Services, lines: Iterable[str], *, priority: int = 0) -> list[Request]:
    """Check and pin the jobs of a batch's lines; blank lines are skipped.

    `priority` is for lines without their own. Raises `Refused` as `enqueue_batch` does.
    """
    requests: list[Request] = []
    wrong: list[str] = []
    custom_ids: dict[str, int] = {}  # the line of each
    families: dict[str, tuple[int, str]] = {}  # the line and family of each model
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            request = _parse_line(services, line, priority)
            _refuse_clash(request, number, custom_ids, families)
            requests.append(request)
        except (Refused, NotFound) as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"\n(and {len(wrong) - _SHOWN} more)" if len(wrong) > _SHOWN else ""
        raise Refused("nothing was enqueued\n" + "\n".join(wrong[:_SHOWN]) + more)
    if not 0 < len(requests) <= MAX_JOBS:
        raise Refused(f"a batch of {len(requests)} jobs: allowed are 1 to {MAX_JOBS}")
    return requests


def insert_batch(session: Session, requests: Sequence[Request], key: str | None = None) -> Batch:
    """Insert jobs under a new batch; the caller commits, then rings (`ring_or_warn`)."""
    batch = jobs.add_batch(session, len(requests))
    for number, request in enumerate(requests):
        # the first job keeps the batch's key
        own_key = None if number else key
        insert(session, request.with_columns(batch_id=batch.id, idempotency_key=own_key))
    return batch


def _refuse_other_lines(
    services: Services, key: str, batch: Batch, requests: Sequence[Request]
) -> None:
    if batch.size != len(requests):
        raise Refused(
            f"idempotency key {key!r} belongs to batch {batch.id} of {batch.size} jobs, not "
            f"{len(requests)}",
            remedy="use a new key",
        )
    with services.database.read() as session:
        stored = jobs.batch_jobs(session, batch.id, with_spec=True)
        for request, job in zip(requests, stored, strict=True):
            refuse_different(session, key, request.asked, job)


def _refuse_clash(
    request: Request, number: int, custom_ids: dict[str, int], families: dict[str, tuple[int, str]]
) -> None:
    """Refuse a line that repeats a custom_id, or trains another family under a model's name.

    The database cannot tell: no job of this batch has created its model yet.
    """
    custom_id = request.columns.get("custom_id")
    if custom_id is not None and custom_ids.setdefault(custom_id, number) != number:
        raise Refused(f"custom_id {custom_id!r} is already on line {custom_ids[custom_id]}")
    name, family = request.pinned.model, request.pinned.family.name
    first, found = families.setdefault(name, (number, family))
    if found != family:
        raise Refused(f"model {name!r} is of family {found!r} on line {first}, not {family!r}")


def _parse_line(services: Services, line: str, priority: int) -> Request:
    data = parse_object(line)
    custom_id, priority = data.pop("custom_id", None), data.pop("priority", priority)
    if custom_id is not None:
        parse_key("custom_id", custom_id)
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise Refused(f"priority: expected a whole number (got {str(priority)[:80]!r})")
    spec = parse_spec(_from_openai(data) if "body" in data else data)
    return prepare(services, spec, custom_id=custom_id, priority=priority)


def _from_openai(line: dict[str, Any]) -> dict[str, Any]:
    """Turn a POST to one of OpenAI's completions URLs into the data of a `Generate`."""
    url, body = line.get("url"), line["body"]
    if line.get("method", "POST") != "POST" or url not in _URLS:
        raise Refused(f"url: expected POST to {' or '.join(_URLS)} (got {str(url)[:80]!r})")
    if not isinstance(body, dict):
        raise Refused("body: expected a JSON object")
    if extra := body.keys() - _BODY:
        raise Refused.unknown("key", min(extra), _BODY, of="body")
    params = {key: body[key] for key in _SAMPLING if body.get(key) is not None}
    if isinstance(params.get("stop"), str):
        params["stop"] = [params["stop"]]
    return {
        "kind": "generate",
        "model": body.get("model"),
        "count": body.get("n") or 1,
        "seed": body.get("seed") or 0,
        "prompts": [{"prompt": _openai_prompt(body), "custom_id": None}],
        "params": params,
    }


def _openai_prompt(body: dict[str, Any]) -> Any:
    messages = body.get("messages")
    if messages is None:
        return body.get("prompt", "")
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("content"), str)
        for message in messages
    ):
        raise Refused('body.messages: expected [{"role", "content"}], each content a text')
    return "\n".join(message["content"] for message in messages)
