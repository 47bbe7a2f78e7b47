"""The lines of a batch, checked one by one, each against those before it.

A line is a spec, `{"kind": "generate", "model": "digits", "count": 8}`, with an optional
`custom_id` and `priority`; or, for text, a line of an OpenAI batch: `custom_id`, `method`, `url`,
`body`.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Unpack

from db.errors import NotFound, Refused
from scheduler.submission.json_lines import parse_object, read_lines
from scheduler.submission.requests import Columns, Preparer, Request
from worker.services import Services
from worker.specs import parse_key, parse_spec

MAX_JOBS = 1_000_000  # of one batch
MAX_LINES = 2 * MAX_JOBS  # blank ones included
MAX_FILE_BYTES = 4 << 30
_SHOWN = 10  # wrong lines

_URLS = ("/v1/completions", "/v1/chat/completions")
_SAMPLING = ("max_tokens", "temperature", "top_p", "stop")
_BODY = {"model", "prompt", "messages", "n", "seed", *_SAMPLING}


def read_batch(path: str) -> Iterator[str]:
    """The lines of a batch's file. Raises `BadInput` as `read_lines` does."""
    return read_lines(path, max_lines=MAX_LINES, max_bytes=MAX_FILE_BYTES)


def check_batch(
    services: Services, lines: Iterable[str], **columns: Unpack[Columns]
) -> Iterator[Request]:
    """Yield the job of each line, checked and pinned; blank lines are skipped.

    `columns` are for lines without their own. Raises `Refused` after the last line, naming the
    wrong ones by number, or if there are too many lines or none.
    """
    checker = _Checker(services, columns)
    count = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        count += 1
        if count > MAX_JOBS:
            break
        request = checker.check(number, line)
        if request is not None:
            yield request
    checker.refuse_wrong()
    if not 0 < count <= MAX_JOBS:
        given = f"more than {MAX_JOBS:,}" if count else "0"
        raise Refused(f"a batch of {given} jobs: allowed are 1 to {MAX_JOBS:,}")


class _Checker:
    def __init__(self, services: Services, columns: Columns) -> None:
        self._preparer = Preparer(services)
        self._columns = columns
        self._wrong = 0
        self._messages: list[str] = []  # of the first wrong lines
        self._custom_ids: dict[int, int] = {}  # the line of each, by its hash
        self._families: dict[str, tuple[int, str]] = {}  # the line and family of each model

    def check(self, number: int, line: str) -> Request | None:
        """The job of a line; None if the line is wrong."""
        try:
            request = self._parse(line)
            self._refuse_clash(request, number)
        except (Refused, NotFound) as error:
            self._wrong += 1
            if self._wrong <= _SHOWN:
                self._messages.append(f"line {number}: {error}")
            return None
        return request

    def refuse_wrong(self) -> None:
        if self._wrong:
            more = f"\n(and {self._wrong - _SHOWN} more)" if self._wrong > _SHOWN else ""
            raise Refused("nothing was enqueued\n" + "\n".join(self._messages) + more)

    def _parse(self, line: str) -> Request:
        data = parse_object(line)
        columns: Columns = {**self._columns}
        custom_id = data.pop("custom_id", None)
        if custom_id is not None:
            columns["custom_id"] = parse_key("custom_id", custom_id)
        if "priority" in data:
            columns["priority"] = _parse_priority(data.pop("priority"))
        spec = parse_spec(_from_openai(data) if "body" in data else data)
        return self._preparer.prepare(spec, **columns)

    def _refuse_clash(self, request: Request, number: int) -> None:
        """Refuse a line that repeats a custom_id, or trains another family under a model's name.

        An earlier line may train the model of a later one, which does not exist yet.
        """
        custom_id = request.columns.get("custom_id")
        if custom_id is not None:
            # of a million ids, two have the same hash of 64 bits once in forty million batches
            first = self._custom_ids.setdefault(hash(custom_id), number)
            if first != number:
                raise Refused(f"custom_id {custom_id!r} is already on line {first}")
        name, family = request.terms.model, request.terms.family.name
        first, found = self._families.setdefault(name, (number, family))
        if found != family:
            raise Refused(f"model {name!r} is of family {found!r} on line {first}, not {family!r}")


def _parse_priority(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(f"priority: expected a whole number (got {str(value)[:80]!r})")
    return value


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
        "prompts": [{"prompt": _openai_prompt(body), "custom_id": None}],
        "params": params,
    } | ({} if body.get("seed") is None else {"seed": body["seed"]})


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
