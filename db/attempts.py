"""How an attempt ends: its result is committed, it failed, or the shard is given back."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, null, select, update
from sqlalchemy.orm import Session

from db.claims import Claim, check_complete, ending, hold, record_artifacts, replace_artifact
from db.commits import NewArtifact, NewManifest
from db.errors import GenmillError, LeaseLost
from db.moves import end_attempts, lock_jobs, move_jobs, succeed_jobs
from db.reaping import give_up, requeue
from db.session import Now, clock
from db.states import JobState, ShardState
from db.tables import SHARDS, Attempt, Checkpoint, Job, Shard, Worker
from db.workers import live

# a quarter of an hour, with the pauses between them
MAX_DECLINES = 20
MAX_PAUSE_S = 60.0


@dataclass(frozen=True)
class Result:
    """What a claim's work made: objects that are in the store already; the last report.

    With a `manifest`, which is in the store too, the job of a single shard succeeds with it.
    """

    claim: Claim
    artifacts: Sequence[NewArtifact]
    report: dict[str, Any] | None = None
    manifest: NewManifest | None = None


def commit_many(session: Session, results: Sequence[Result]) -> dict[str, GenmillError | None]:
    """Record what shards of one worker made and end them as succeeded.

    Returns by shard id None, or why its result was not recorded: `Cancelled`, `LeaseLost`, or
    another error if it is incomplete; that harms no other. A job of one shard ends with it, or is
    finalizing if the result has no manifest; for the others, call `db.jobs.settle` in a later
    transaction. After an error at the end of the transaction, `outcome` tells whether it was
    committed.
    """
    outcomes: dict[str, GenmillError | None] = {}
    complete = [result for result in results if _is_complete(result, outcomes)]
    claims = [result.claim for result in complete]
    jobs = lock_jobs(session, {claim.job_id for claim in claims if claim.alone}, shared=False)
    jobs |= lock_jobs(session, {claim.job_id for claim in claims if not claim.alone}, shared=True)
    running = {job_id for job_id, job in jobs.items() if job.status == JobState.RUNNING}
    ended = _end_shards(session, [claim for claim in claims if claim.job_id in running])
    done = [result for result in complete if result.claim.shard_id in ended]
    if done:  # each shard has a time of its own: objects come before them all, ends of jobs after
        _record(session, done, made_at=min(ended.values()), ended_at=max(ended.values()))
    lost = {claim.shard_id: claim for claim in claims if claim.shard_id not in ended}
    return outcomes | dict.fromkeys(ended) | _endings(session, lost)


def commit(
    session: Session,
    claim: Claim,
    artifacts: Sequence[NewArtifact],
    *,
    report: dict[str, Any] | None = None,
) -> None:
    """`commit_many` for one shard. Raises why nothing was recorded."""
    error = commit_many(session, [Result(claim, artifacts, report)])[claim.shard_id]
    if error is not None:
        raise error


def outcome(session: Session, claim: Claim) -> str | None:
    """How the claim's attempt ended; None while it has not."""
    if succeeded(session, [claim]):
        return "succeeded"
    ended = (Attempt.shard_id == claim.shard_id, Attempt.fence == claim.fence)
    return session.scalar(select(Attempt.outcome).where(*ended))


def succeeded(session: Session, claims: Sequence[Claim]) -> set[str]:
    """The ids of those shards that these very claims have ended as succeeded."""
    fences = {claim.shard_id: claim.fence for claim in claims}
    won = select(Shard.id, Shard.fence).where(
        Shard.id.in_(fences), Shard.status == ShardState.SUCCEEDED
    )
    return {row.id for row in session.execute(won) if fences[row.id] == row.fence}


def put_artifact(session: Session, claim: Claim, artifact: NewArtifact) -> None:
    """Record a preview or report while the shard runs, replacing the last one of that name."""
    hold(session, claim)
    replace_artifact(session, claim, artifact, at=clock(session))


def fail(
    session: Session,
    claim: Claim,
    error: str,
    *,
    final: bool,
    max_failures: int,
    backoff_s: float,
) -> ShardState:
    """Count a failure of the work itself; return the shard's new state, queued or failed.

    It fails, and its job with it, if `final` or at the `max_failures`-th failure. Otherwise it is
    due after `backoff_s` * 2**(n-1) for the n-th failure. Raises `Cancelled` or `LeaseLost`.
    """
    # read before the locks, to choose the job's; only this claim could have counted another
    counted = session.scalar(select(Shard.failures).where(Shard.id == claim.shard_id)) or 0
    failures = counted + 1
    last = final or failures >= max_failures
    job, shard = hold(session, claim, exclusive=last)
    now = clock(session)
    end_attempts(session, [shard.id], "failed", at=now, error=error)
    if last:
        give_up(session, job, shard, error, at=now, failures=failures)
        return ShardState.FAILED
    pause_s = backoff_s * 2 ** (failures - 1)
    requeue(session, shard, error, at=now, pause_s=pause_s, failures=failures)
    return ShardState.QUEUED


def release(session: Session, claim: Claim, reason: str, *, backoff_s: float = 0) -> None:
    """Requeue a shard without counting a failure, as after a drain or an unreachable service.

    Raises `Cancelled` or `LeaseLost`.
    """
    _, shard = hold(session, claim)
    now = clock(session)
    end_attempts(session, [shard.id], "released", at=now, error=reason)
    requeue(session, shard, reason, at=now, pause_s=backoff_s, releases=shard.releases + 1)


def decline(
    session: Session, claim: Claim, reason: str, *, lasting: bool, max_failures: int
) -> ShardState:
    """Give a shard back that this machine cannot work on; return its new state, queued or failed.

    No failure is counted. It is due after a pause that grows each time, to a minute, and another
    machine or a later moment may do. At the `MAX_DECLINES`-th time it fails, and its job with it;
    if the reason is `lasting`, once every live machine has declined it and it was declined
    `max_failures` times. Raises `Cancelled` or `LeaseLost`.
    """
    of_shard = (Attempt.shard_id == claim.shard_id, Attempt.outcome == DECLINED)
    # read before the locks, to choose the job's; only this claim could have added another
    before = session.scalar(select(func.count()).where(*of_shard)) or 0
    declined = before + 1
    last = declined >= MAX_DECLINES
    if lasting and declined >= max_failures:
        last = last or _all_declined(session, claim)
    job, shard = hold(session, claim, exclusive=last)
    now = clock(session)
    end_attempts(session, [shard.id], DECLINED, at=now, error=reason)
    released = {"releases": shard.releases + 1}
    if last:
        error = f"{reason} (tried {declined} times)"
        give_up(session, job, shard, error, at=now, **released)
        return ShardState.FAILED
    pause_s = min(MAX_PAUSE_S, 2.0**declined)
    requeue(session, shard, reason, at=now, pause_s=pause_s, **released)
    return ShardState.QUEUED


DECLINED = "declined"  # an attempt's outcome; one of the shard's releases


def _all_declined(session: Session, claim: Claim) -> bool:
    """Whether a worker of every live machine, by host and device, has declined the shard."""
    those = select(Worker.host, Worker.device).join(Attempt, Attempt.worker == Worker.boot_id)
    found = those.where(Attempt.shard_id == claim.shard_id, Attempt.outcome == DECLINED)
    declined = {tuple(row) for row in session.execute(found)}
    others = [each for each in live(session) if each.boot_id != claim.owner]
    own = session.get(Worker, claim.owner)
    if own is not None:
        declined.add((own.host, own.device))
    return {(each.host, each.device) for each in others} <= declined


def _is_complete(result: Result, outcomes: dict[str, GenmillError | None]) -> bool:
    try:
        check_complete(result.claim, result.artifacts)
    except GenmillError as error:
        outcomes[result.claim.shard_id] = error
        return False
    return True


def _end_shards(session: Session, claims: Sequence[Claim]) -> dict[str, datetime]:
    """Move the shards that these claims still hold to succeeded; return the times, by their ids.

    Their owner and the times of the attempt stay on their rows, as history.
    """
    ended: dict[str, datetime] = {}
    for (fence, samples), ids in _alike(claims).items():
        held = {"ids": ids, "held_fence": fence, "holder": claims[0].owner}
        for row in session.execute(_SUCCEED[samples], held):
            ended[row.id] = row.ended_at
    return ended


def _succeeding(*, samples: bool) -> Any:
    shard = SHARDS.c
    new = {"status": ShardState.SUCCEEDED.value, "ended_at": Now()}
    new |= {"lease_until": null(), "dispatched_at": null()}
    if samples:  # the progress that was reported follows from the range now
        new["report"] = null()
    held = update(SHARDS).where(
        shard.id.in_(bindparam("ids", expanding=True)),
        shard.fence == bindparam("held_fence"),
        shard.status == ShardState.RUNNING.value,
        shard.owner == bindparam("holder"),
    )
    return held.values(new).returning(shard.id, shard.ended_at)


_SUCCEED = {samples: _succeeding(samples=samples) for samples in (True, False)}


def _alike(claims: Sequence[Claim]) -> dict[tuple[int, bool], list[str]]:
    """The shards by fence and by whether they make samples: nearly always, all are alike."""
    shards: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for claim in claims:
        shards[claim.fence, claim.kind == "generate"].append(claim.shard_id)
    return shards


def _record(
    session: Session, done: Sequence[Result], *, made_at: datetime, ended_at: datetime
) -> None:
    for result in done:
        if result.claim.kind != "generate":
            _record_training(session, result, at=made_at)
    made = [(result.claim, each) for result in done for each in result.artifacts]
    made = [pair for pair in made if pair[0].kind == "generate"]
    record_artifacts(session, made, at=made_at)
    whole = {result.claim.job_id: result.manifest for result in done if result.claim.alone}
    ready = {key: manifest for key, manifest in whole.items() if manifest}
    succeed_jobs(session, ready, at=ended_at)
    others = [key for key, manifest in whole.items() if not manifest]
    move_jobs(session, others, JobState.RUNNING, JobState.FINALIZING, at=ended_at)


def _record_training(session: Session, result: Result, *, at: datetime) -> None:
    shard_id = result.claim.shard_id
    # a shard that succeeded never resumes, so its checkpoints become garbage
    session.execute(delete(Checkpoint).where(Checkpoint.shard_id == shard_id))
    if result.report is not None:
        reported = update(Shard).where(Shard.id == shard_id).values(report=result.report)
        session.execute(reported.execution_options(synchronize_session=False))
    for artifact in result.artifacts:  # one of its previews may have the same name
        replace_artifact(session, result.claim, artifact, at=at)


def _endings(session: Session, lost: dict[str, Claim]) -> dict[str, GenmillError | None]:
    """Why each of these claims is over."""
    if not lost:
        return {}
    columns = (Shard.id, Shard.status, Shard.fence, Shard.owner, Job.status.label("job_status"))
    statement = select(*columns).join(Job, Job.id == Shard.job_id).where(Shard.id.in_(lost))
    found = {row.id: row for row in session.execute(statement)}
    return {
        key: (ending(claim, found[key].job_status, found[key]) if key in found else None)
        or LeaseLost(f"shard {key}: claim {claim.fence} is over")
        for key, claim in lost.items()
    }
