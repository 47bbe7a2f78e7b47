"""The lines of a batch, checked one by one, each against those before it.

A line is a spec, `{"kind": "generate", "model": "digits", "count": 8}`, with an optional
`custom_id`, `priority` and `after`, the custom_id of the line that it waits for; or, for text, a
line of an OpenAI batch (`openai_lines`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Unpack

from db.errors import NotFound, Refused
from scheduler.submission.batch_chains import BatchChains
from scheduler.submission.json_lines import parse_object, read_lines
from scheduler.submission.judges import JudgeFolders
from scheduler.submission.openai_lines import parse_openai
from scheduler.submission.requests import Columns, Preparer, Request, Unchecked, Waiting
from worker.complaints import as_given
from worker.conversations import Conversation
from worker.services import Services
from worker.specs import Generate, Spec, parse_key, parse_spec

MAX_JOBS = 1_000_000  # of one batch
MAX_LINES = 2 * MAX_JOBS  # blank ones included
MAX_FILE_BYTES = 4 << 30
_SHOWN = 10  # wrong lines

Ignored = Counter[str]


def read_batch(path: str) -> Iterator[str]:
    """The lines of a batch's file. Raises `BadInput` as `read_lines` does."""
    return read_lines(path, max_lines=MAX_LINES, max_bytes=MAX_FILE_BYTES)


def check_batch(
    services: Services,
    lines: Iterable[str],
    *,
    ignored: Ignored | None = None,
    judges: JudgeFolders | None = None,
    **columns: Unpack[Columns],
) -> Iterator[Request | Unchecked]:
    """Yield the job of each line, checked and pinned; blank lines are skipped.

    `columns` are for lines without their own. In `ignored` are counted the lines that hold each
    key that changes nothing. `judges` looks at folders of image models; by default, it loads none.
    Raises `Refused` after the last line, naming the wrong ones by number,
    or if there are too many lines or none.
    """
    judges = judges or JudgeFolders(loading=False)
    checker = _Checker(services, columns, Counter() if ignored is None else ignored, judges)
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
    def __init__(
        self, services: Services, columns: Columns, ignored: Ignored, judges: JudgeFolders
    ) -> None:
        self.ignored = ignored
        self._judges = judges
        self._services = services
        self._preparer = Preparer(services)
        self._chains = BatchChains(self._preparer)
        self._columns = columns
        self._wrong = 0
        self._messages: list[tuple[int, str]] = []  # of the first wrong lines, by number
        self._custom_ids: dict[int, int] = {}  # the line of each, by its hash
        self._families: dict[str, tuple[int, str]] = {}  # the line and family of each model

    def check(self, number: int, line: str) -> Request | Unchecked | None:
        """The job of a line; None if the line is wrong."""
        try:
            request = self._parse(number, line)
            self._refuse_repeated(request, number)
            if not isinstance(request, Unchecked):
                self._chains.add(request)
            if isinstance(request, Request | Waiting):
                self._refuse_clash(request, number)
        except (Refused, NotFound) as error:
            self._note_wrong(number, error)
            return None
        return request

    def refuse_wrong(self) -> None:
        for number, result in self._chains.check_early(self._custom_ids):
            try:
                if isinstance(result, Exception):
                    raise result
                self._refuse_clash(result, number)
            except (Refused, NotFound) as error:
                self._note_wrong(number, error)
        if self._wrong:
            more = f"\n(and {self._wrong - _SHOWN} more)" if self._wrong > _SHOWN else ""
            shown = [f"line {number}: {message}" for number, message in sorted(self._messages)]
            raise Refused("nothing was enqueued\n" + "\n".join(shown) + more)

    def _note_wrong(self, number: int, error: Exception) -> None:
        self._wrong += 1
        if self._wrong <= _SHOWN:
            self._messages.append((number, str(error)))

    def _parse(self, number: int, line: str) -> Request | Unchecked:
        data = parse_object(line)
        columns: Columns = {**self._columns}
        if (custom_id := data.pop("custom_id", None)) is not None:
            columns["custom_id"] = parse_key("custom_id", custom_id)
        if (after := data.pop("after", None)) is not None:
            columns["after_id"] = parse_key("after", after)
        if "priority" in data:
            columns["priority"] = _parse_priority(data.pop("priority"))
        if "body" not in data:
            return self._prepare(number, parse_spec(data), columns)
        data, ignored = parse_openai(data)
        self.ignored.update(ignored)
        request = self._prepare(number, parse_spec(data), columns)
        return _with_plain_prompt(replace(request, ignored=tuple(ignored)))

    def _prepare(self, number: int, spec: Spec, columns: Columns) -> Request | Unchecked:
        if isinstance(spec, Generate) and spec.marks and spec.marks.keys:
            tenant = self._services.settings.tenant
            raise Refused(
                f"marks.keys: those of tenant {tenant!r} are pinned when a job is stored "
                f"(got {as_given(spec.marks.keys)})",
                remedy="leave it out; GENMILL_TENANT says whose keys are used",
            )
        self._judges.refuse_unusable(spec)
        if columns.get("after_id") is None:
            return self._preparer.prepare(spec, **columns)
        seen = hash(columns["after_id"]) in self._custom_ids
        return self._chains.check(number, spec, columns, seen=seen)

    def _refuse_repeated(self, request: Request | Unchecked, number: int) -> None:
        """Refuse a line that repeats a custom_id."""
        custom_id = request.columns.get("custom_id")
        if custom_id is not None:
            # of a million ids, two have the same hash of 64 bits once in forty million batches
            first = self._custom_ids.setdefault(hash(custom_id), number)
            if first != number:
                raise Refused(f"custom_id {custom_id!r} is already on line {first}")

    def _refuse_clash(self, request: Request | Waiting, number: int) -> None:
        """Refuse a line that trains another family under a model's name.

        An earlier line may train the model of a later one, which does not exist yet.
        """
        name, family = request.model, request.family.name
        first, found = self._families.setdefault(name, (number, family))
        if found != family:
            raise Refused(f"model {name!r} is of family {found!r} on line {first}, not {family!r}")


def _with_plain_prompt(request: Request | Unchecked) -> Request | Unchecked:
    """The same job with a lone user message as a plain prompt, which its model reads alike."""
    asked: Any = request.asked
    [prompt] = asked.prompts
    text = prompt.prompt.only_text if isinstance(prompt.prompt, Conversation) else None
    if text is None or not text:
        return request
    plain = prompt.model_copy(update={"prompt": text})
    return replace(request, asked=asked.model_copy(update={"prompts": [plain]}))


def _parse_priority(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(f"priority: expected a whole number (got {as_given(value)})")
    return value
