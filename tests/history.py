"""Histories of clients' calls, in the manner of Jepsen, and a check of what they were told.

A call without a reply has an unknown outcome: it took effect or not. What was told holds from then
on, for every client: a call that begins after another has ended sees no earlier state.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

FINAL = frozenset({"succeeded", "failed", "cancelled"})
# an order of accepted samples goes from finalizing back to running
RANK = {"waiting": 0, "queued": 1, "running": 2, "finalizing": 2} | dict.fromkeys(FINAL, 3)


@dataclass
class Call:
    """A call: of `enqueue` and `retry` the reply is an id, of `cancel` whether it did, of `show` a
    state. `refused`: it was told that nothing was done.
    """

    client: str
    what: str
    job: str | None = None
    key: str | None = None
    began: float = 0.0
    ended: float | None = None
    reply: str | bool | None = None
    refused: bool = False

    def refuse(self) -> None:
        """Note that the call was refused."""
        self.refused = True

    @property
    def told(self) -> tuple[str, str] | None:
        """A job and the state that the reply tells of it; "ended" if it does not say how."""
        if self.what in {"enqueue", "retry"} and self.reply:
            return str(self.reply), "waiting"
        if self.what == "cancel" and self.reply is not None:
            return str(self.job), "cancelled" if self.reply else "ended"
        if self.what == "show" and self.reply:
            return str(self.job), str(self.reply)
        return None


@dataclass
class History:
    """The calls of all clients; `clock` is one that all of them share."""

    clock: Callable[[], float]
    calls: list[Call] = field(default_factory=list)

    @contextmanager
    def call(self, client: str, what: str, *, job: str | None = None, key: str | None = None):
        """Note a call; the block sets its `reply`, or calls `refuse`. An error: unknown."""
        made = Call(client, what, job, key, began=self.clock())
        self.calls.append(made)
        yield made
        made.ended = self.clock()


def check(history: History, states: Mapping[str, str], keys: Mapping[str, str]) -> Iterator[str]:
    """What the record at the end contradicts, or a later reply.

    `states` are the jobs' by their ids, `keys` the ids of jobs by their idempotency keys.
    """
    yield from _enqueued(history, states, keys)
    by_job: dict[str, list[Call]] = defaultdict(list)
    for call in history.calls:
        if call.told is not None and call.ended is not None:
            by_job[call.told[0]].append(call)
    for job, calls in by_job.items():
        yield from _seen(job, calls, states.get(job))


def _enqueued(
    history: History, states: Mapping[str, str], keys: Mapping[str, str]
) -> Iterator[str]:
    ids: dict[str, str] = {}
    refused = set()
    for call in history.calls:
        if call.what in {"enqueue", "retry"} and call.reply:
            job = str(call.reply)
            if states.get(job) not in FINAL:
                yield f"job {job} was printed, and is {states.get(job, 'not on record')}"
            if call.key is not None and ids.setdefault(call.key, job) != job:
                yield f"key {call.key} gave job {ids[call.key]}, then {job}"
        elif call.what == "enqueue" and call.refused and call.key is not None:
            refused.add(call.key)
    for key in refused - ids.keys():
        if key in keys:
            yield f"the request of key {key} was refused, and job {keys[key]} is stored"


def _seen(job: str, calls: list[Call], last: str | None) -> Iterator[str]:
    """Replies that tell of an earlier state than one told before they were asked for."""
    points = [(call.began, 0, n) for n, call in enumerate(calls)]
    points += [(call.ended or 0.0, 1, n) for n, call in enumerate(calls)]
    highest = "waiting"
    floors: dict[int, str] = {}
    for _, is_end, n in sorted(points):
        if not is_end:
            floors[n] = highest
            continue
        state = _state(calls[n])
        if not _follows(floors[n], state):
            yield f"job {job} was {floors[n]}, and {calls[n].client} was told later: {state}"
        if _rank(state) > _rank(highest) or highest == "ended":
            highest = state
    if last is not None and not _follows(highest, last):
        yield f"job {job} was told to be {highest}, and is {last}"


def _state(call: Call) -> str:
    assert call.told is not None
    return call.told[1]


def _rank(state: str) -> int:
    return RANK.get(state, RANK["succeeded"])  # "ended" is final


def _follows(earlier: str, later: str) -> bool:
    if _rank(earlier) < _rank("ended"):
        return _rank(later) >= _rank(earlier)
    return later == earlier or (_rank(later) == _rank(earlier) and "ended" in {earlier, later})
