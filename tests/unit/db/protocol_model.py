"""The lease protocol as a model: every order in which its statements can run, explored.

Processes are two workers, a scheduler (reap, settle, finish) and a user who cancels. A transaction
is several steps; its locks last until it commits, and its writes are seen from then on, as under
READ COMMITTED. A step that needs a held lock waits. At any moment a lease may expire, a process may
die, and a COMMIT's reply may be lost. A decline is a release or, at its bound, a failure. `broken`
names rules to leave out, to see what they are for.

Knows nothing of the code: `test_invariants` and `test_races` walk through that.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

FINAL = frozenset({"succeeded", "failed", "cancelled"})
OPEN = frozenset({"queued", "running"})
LIVE = frozenset({"queued", "running", "finalizing"})


class Shard(NamedTuple):
    status: str = "queued"
    fence: int = 0
    owner: str = ""
    expired: bool = False
    artifacts: int = 0


class Process(NamedTuple):
    """`at` names the next step; `job` is the lock on the job's row, "S" or "X"."""

    at: str = "idle"
    shard: int = 0
    fence: int = 0
    job: str = ""
    rows: frozenset[int] = frozenset()  # the shards' rows that it has locked
    ends: bool = False  # has fixed the time at which the job ends
    last: bool = False  # has seen every other shard succeeded (in a broken protocol)


class State(NamedTuple):
    job: str
    shards: tuple[Shard, ...]
    processes: tuple[Process, ...]


class Violation(Exception):
    """A state or step that the protocol must not allow."""


WORKERS = ("ann", "bob")
SCHEDULER, USER = 2, 3


class Model:
    """A job of `shards` shards, each claimed at most `claims` times."""

    def __init__(self, shards: int, claims: int, *broken: str) -> None:
        self.shards = shards
        self.claims = claims
        self.broken = frozenset(broken)

    def explore(self) -> int:
        """Visit every reachable state, breadth first; return their number. Raises `Violation`."""
        start = State("queued", (Shard(),) * self.shards, (Process(),) * 4)
        seen, queue = {start}, deque([start])
        while queue:
            state = queue.popleft()
            self._check_progress(state)
            for after in self._steps(state):
                self._check(state, after)
                if after not in seen:
                    seen.add(after)
                    queue.append(after)
        return len(seen)

    # --- what may happen next ---

    def _steps(self, state: State) -> Iterator[State]:
        for n, shard in enumerate(state.shards):
            if shard.status == "running" and not shard.expired and not self._held(state, n):
                yield _with_shard(state, n, expired=True)
        for who, process in enumerate(state.processes):
            if process.at == "idle":
                yield from self._begin(state, who)
                continue
            yield from self._next(state, who, process)
            if (
                process.at != "done" and "nobody dies" not in self.broken
            ):  # it dies, and its transaction with it
                yield _at(state, who, Process("done" if who == USER else "idle"))

    def _begin(self, state: State, who: int) -> Iterator[State]:
        if who == USER:
            yield from self._lock_job(state, who, Process(), "cancel")
            return
        for n, shard in enumerate(state.shards):
            if who == SCHEDULER:
                if shard.status == "running" and shard.expired:  # read without a lock
                    yield _at(state, who, Process("reap-job", n, shard.fence))
            elif shard.fence < self.claims and shard.status in OPEN and state.job in LIVE:
                yield from self._lock_job(state, who, Process("claim", n), "claim")
                if shard.status == "queued":
                    yield from self._lock_shard(state, who, Process("due", n), "due")
        if who == SCHEDULER:
            yield from self._recover(state)

    def _recover(self, state: State) -> Iterator[State]:
        complete = all(shard.status == "succeeded" for shard in state.shards)
        if state.job == "running" and complete and "no recovery" not in self.broken:
            yield from self._lock_job(state, SCHEDULER, Process(), "settle")
        if state.job == "finalizing":
            yield from self._lock_job(state, SCHEDULER, Process(), "finish")

    def _next(self, state: State, who: int, process: Process) -> Iterator[State]:
        verb, _, row = process.at.partition("-")
        if verb == "work":
            yield from self._work(state, who, process)
        elif row == "job":
            yield from self._lock_job(state, who, process, verb)
        elif row == "shard":
            yield from self._lock_shard(state, who, process, verb)
        elif row == "end":
            yield from self._end(state, who, process, verb)

    def _work(self, state: State, who: int, process: Process) -> Iterator[State]:
        """A worker that has a claim: commit, fail, give back, or renew."""
        for verb in ("commit", "fail", "release"):
            yield from self._lock_job(state, who, process, verb)
        n = process.shard
        if self._held(state, n):
            return  # the UPDATE waits
        if self._holds(state, who, process, "renew"):
            self._only_holder(state, who, process)
            yield _with_shard(state, n, expired=False)
        else:
            yield _at(state, who, Process())

    def _lock_job(self, state: State, who: int, process: Process, verb: str) -> Iterator[State]:
        mode = self._mode(state, verb)
        if not self._free(state, who, mode):
            if verb == "due" and "waits for the job" not in self.broken:
                yield _at(state, who, Process())  # SKIP LOCKED: another shard, another time
            return
        locked = process._replace(job=mode, at=f"{verb}-shard")
        if state.job not in self._allowed(verb):
            yield _at(state, who, self._refused(state, who, process, verb))
        elif verb in {"settle", "finish"}:
            yield _at(state, who, locked._replace(at=f"{verb}-end"))
        elif verb == "due":
            yield _at(state, who, locked._replace(at="claim-end"))
        elif verb in {"cancel", "fail"}:
            yield _at(state, who, locked._replace(ends=True))
        else:
            yield _at(state, who, locked)

    def _mode(self, state: State, verb: str) -> str:
        """Exclusive for what moves the job, shared otherwise; never first one, then the other."""
        if f"{verb} without the job" in self.broken:
            return ""
        if verb in {"cancel", "fail", "settle", "finish"}:
            return "X"
        if verb in {"claim", "due"} and state.job == "queued" and "upgrade" not in self.broken:
            return "X"
        return "X" if verb == "commit" and self.shards == 1 else "S"

    def _allowed(self, verb: str) -> frozenset[str]:
        if verb == "settle" and "settle unchecked" in self.broken:
            return LIVE | FINAL
        return {
            "claim": OPEN,
            "due": OPEN,
            "cancel": LIVE,
            "finish": frozenset({"finalizing"}),
        }.get(verb, frozenset({"running"}))

    def _lock_shard(self, state: State, who: int, process: Process, verb: str) -> Iterator[State]:
        if verb in {"cancel", "fail"}:
            yield from self._lock_all(state, who, process, verb)
            return
        n = process.shard
        if self._held(state, n, besides=who):
            return  # it waits; `due` skips the row, as if it had not looked
        if verb == "claim" and process.job == "S" and state.job == "queued":  # broken: upgrades
            if not self._free(state, who, "X"):
                return
            process = process._replace(job="X")
        locked = process._replace(rows=process.rows | {n}, last=self._is_last(state, n, verb))
        if not self._may(state, who, process, verb):
            yield _at(state, who, self._refused(state, who, process, verb))
        elif verb == "due":
            yield _at(state, who, locked._replace(at="due-job"))
        else:
            yield _at(state, who, locked._replace(at=f"{verb}-end"))

    def _lock_all(self, state: State, who: int, process: Process, verb: str) -> Iterator[State]:
        """Lock the open shards one after the other, as one UPDATE does."""
        for n, shard in enumerate(state.shards):
            if shard.status in OPEN and n not in process.rows:
                if not self._held(state, n, besides=who):
                    yield _at(state, who, process._replace(rows=process.rows | {n}))
                return
        if verb == "fail" and not self._holds(state, who, process, "fail"):
            yield _at(state, who, Process())
        else:
            yield _at(state, who, process._replace(at=f"{verb}-end"))

    def _is_last(self, state: State, n: int, verb: str) -> bool:
        if verb != "commit" or "settles with the commit" not in self.broken:
            return False
        return all(shard.status == "succeeded" for i, shard in enumerate(state.shards) if i != n)

    def _may(self, state: State, who: int, process: Process, verb: str) -> bool:
        shard = state.shards[process.shard]
        if verb in {"claim", "due"}:
            taken_over = shard.status == "running" and shard.expired and verb == "claim"
            return shard.fence < self.claims and (shard.status == "queued" or taken_over)
        if verb == "reap":
            expired = shard.expired or "reap unchecked" in self.broken
            return shard.status == "running" and expired
        return self._holds(state, who, process, verb)

    def _holds(self, state: State, who: int, process: Process, verb: str) -> bool:
        shard = state.shards[process.shard]
        if f"{verb} without a fence" in self.broken:
            return True
        held = (shard.status, shard.fence, shard.owner)
        return held == ("running", process.fence, WORKERS[who])

    def _refused(self, state: State, who: int, process: Process, verb: str) -> Process:
        """What a process does next if its step was refused; its locks are gone."""
        if verb == "commit" and self._won(state, process):
            return Process("settle-job")  # the reply to an earlier COMMIT was lost
        return Process("done") if who == USER else Process()

    def _won(self, state: State, process: Process) -> bool:
        shard = state.shards[process.shard]
        return (shard.status, shard.fence) == ("succeeded", process.fence)

    # --- COMMIT ---

    def _end(self, state: State, who: int, process: Process, verb: str) -> Iterator[State]:
        if verb not in {"cancel", "finish", "settle", "claim"} and verb != "reap":
            self._only_holder(state, who, process)
        if process.job != "X" and any(p.ends for p in state.processes):
            raise Violation(f"a {verb} is recorded after the time at which the job ends")
        after = getattr(self, f"_{verb}")(state, who, process)
        yield after
        if verb == "commit":  # the reply is lost, with the transaction or without
            again = Process("commit-job", process.shard, process.fence)
            yield _at(state, who, again)
            yield _at(after, who, again)
            if after.job == "finalizing":  # or the job's manifest is stored already
                ended = after._replace(job="succeeded")
                yield ended
                yield _at(ended, who, again)

    def _claim(self, state: State, who: int, process: Process) -> State:
        n = process.shard
        fence = state.shards[n].fence + 1
        made = {"status": "running", "fence": fence, "owner": WORKERS[who], "expired": False}
        after = _with_shard(state, n, **made)
        job = "running" if process.job == "X" or "upgrade" in self.broken else after.job
        return _at(after._replace(job=job), who, Process("work", n, fence))

    def _commit(self, state: State, who: int, process: Process) -> State:
        n = process.shard
        made = state.shards[n].artifacts + 1
        after = _with_shard(state, n, status="succeeded", owner="", expired=False, artifacts=made)
        if process.job == "X":  # a job's only shard: nothing is left to settle
            return _at(after._replace(job="finalizing"), who, Process())
        if "settles with the commit" in self.broken:
            job = "finalizing" if process.last else after.job
            return _at(after._replace(job=job), who, Process())
        return _at(after, who, Process("settle-job"))

    def _release(self, state: State, who: int, process: Process) -> State:
        back = {"status": "queued", "owner": "", "expired": False}
        return _at(_with_shard(state, process.shard, **back), who, Process())

    def _reap(self, state: State, who: int, process: Process) -> State:
        if not state.shards[process.shard].expired:
            raise Violation("a live lease was taken back")
        return self._release(state, who, process)

    def _fail(self, state: State, who: int, process: Process) -> State:
        shards = self._cancelled(state)
        shards[process.shard] = shards[process.shard]._replace(status="failed", owner="")
        return _at(state._replace(job="failed", shards=tuple(shards)), who, Process())

    def _cancel(self, state: State, who: int, _: Process) -> State:
        shards = tuple(self._cancelled(state))
        return _at(state._replace(job="cancelled", shards=shards), who, Process("done"))

    def _cancelled(self, state: State) -> list[Shard]:
        gone = {"status": "cancelled", "owner": "", "expired": False}
        return [s._replace(**gone) if s.status in OPEN else s for s in state.shards]

    def _settle(self, state: State, who: int, _: Process) -> State:
        complete = all(shard.status == "succeeded" for shard in state.shards)
        return _at(state._replace(job="finalizing" if complete else state.job), who, Process())

    def _finish(self, state: State, who: int, _: Process) -> State:
        return _at(state._replace(job="succeeded"), who, Process())

    # --- locks ---

    def _held(self, state: State, n: int, *, besides: int = -1) -> bool:
        return any(n in p.rows for who, p in enumerate(state.processes) if who != besides)

    def _free(self, state: State, who: int, mode: str) -> bool:
        others = [p.job for i, p in enumerate(state.processes) if i != who]
        return mode == "" or ("X" not in others and (mode == "S" or "S" not in others))

    # --- what must hold ---

    def _only_holder(self, state: State, who: int, process: Process) -> None:
        shard = state.shards[process.shard]
        if (shard.status, shard.fence, shard.owner) != ("running", process.fence, WORKERS[who]):
            raise Violation(f"{WORKERS[who]}, who has claim {process.fence}, changed {shard}")

    def _check(self, before: State, after: State) -> None:
        if before.job in FINAL and after.job != before.job:
            raise Violation(f"the job went from {before.job} to {after.job}")
        complete = all(shard.status == "succeeded" for shard in after.shards)
        if after.job in {"finalizing", "succeeded"} and not complete:
            raise Violation(f"the job is {after.job} with {after.shards}")
        for old, new in zip(before.shards, after.shards, strict=True):
            self._check_shard(old, new, after.job)

    def _check_shard(self, old: Shard, new: Shard, job: str) -> None:
        if old.status in FINAL and new.status != old.status:
            raise Violation(f"a shard went from {old.status} to {new.status}")
        if new.fence < old.fence:
            raise Violation("a fence shrank")
        if new.artifacts != (new.status == "succeeded"):
            raise Violation(f"a shard that is {new.status} has {new.artifacts} artifacts")
        if (new.status == "running" and job != "running") or (new.status in OPEN and job in FINAL):
            raise Violation(f"a shard is {new.status} and its job {job}")

    def _check_progress(self, state: State) -> None:
        """Nobody waits in a circle, and a job at rest can go on."""
        waiting = {who for who in range(4) if self._waits(state, who)}
        holding = {who for who, p in enumerate(state.processes) if p.job or p.rows}
        if holding and holding <= waiting:
            raise Violation(f"a deadlock: {[p.at for p in state.processes]}")
        at_rest = all(p.at in {"idle", "done"} for p in state.processes)
        worn_out = any(s.status == "queued" and s.fence >= self.claims for s in state.shards)
        if at_rest and state.job in LIVE and not worn_out:
            leases = any(s.status == "running" for s in state.shards)  # they will expire
            free = (n for who in (0, SCHEDULER) for n in self._begin(state, who))
            if not leases and next(free, None) is None:
                raise Violation(f"nobody goes on with {state}")

    def _waits(self, state: State, who: int) -> bool:
        process = state.processes[who]
        if process.at in {"idle", "done", "work"}:
            return False
        return next(self._next(state, who, process), None) is None


def _at(state: State, who: int, process: Process) -> State:
    rest = (*state.processes[:who], process, *state.processes[who + 1 :])
    return state._replace(processes=rest)


def _with_shard(state: State, n: int, **changes: object) -> State:
    shard = state.shards[n]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(shards=(*state.shards[:n], shard, *state.shards[n + 1 :]))
