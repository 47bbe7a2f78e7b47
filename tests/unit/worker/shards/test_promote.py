"""A promote job: the alias, its history, the report and the job's end are one transaction."""

import json
import multiprocessing
from functools import partial

import pytest
import torch

from db import artifacts, evaluations, jobs, models, promotions, shards
from db.promotions import Reason
from db.tables import Job
from scheduler.datasets.add import add_dataset as add_text
from scheduler.submission.enqueue import enqueue
from tests.evaluations import add_dataset, add_evaluation, add_version, images
from worker.services import Services
from worker.services.evidence import gather
from worker.services.finalize import finalize
from worker.settings import Settings
from worker.shards import promote
from worker.shards.attempt import work
from worker.shards.context import WorkerContext
from worker.shared_memory import SharedState
from worker.specs import parse_spec

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def settings(tmp_path, database_url):
    return Settings(_env_file=None, home=tmp_path, database_url=database_url, redis_url=NOWHERE)


@pytest.fixture
def services(settings):
    """A poor champion, a better version, and a poor one."""
    opened = Services(settings)
    for _ in range(3):
        add_version(opened)
    add_dataset(opened)
    for version, items in (
        ("digits:1", images(1, shift=0.5)),
        ("digits:2", images(2)),
        ("digits:3", images(3, shift=0.6)),
    ):
        add_evaluation(opened, version, items)
    set_champion(opened, 1)
    yield opened
    opened.close()


def set_champion(services, number, alias="champion"):
    with services.database.write() as session:
        model, version = models.resolve(session, f"digits:{number}")
        now = promotions.holder(session, model, alias)
        how = {"expected": now.id if now else None, "outcome": "set", "reason": Reason("ann")}
        promotions.move(session, model, alias, version, **how)


def ask(services, number, **options):
    spec = {"kind": "promote", "model": f"digits:{number}", **options}
    return enqueue(services, parse_spec(spec)).id


def run(settings, job_id, failpoint=None):
    """Answer the job's doorbell, in this process."""
    services = Services(settings.model_copy(update={"failpoint": failpoint}))
    with services.database.read() as session:
        [shard] = jobs.shards_of(session, job_id)
    context = WorkerContext(services, torch.device("cpu"))
    work(context, shard.id, owner="boot", shared=SharedState())
    services.close()


def killed(settings, job_id, failpoint):
    """Answer it in a process that dies at a failpoint, and let its lease run out."""
    context = multiprocessing.get_context("spawn")
    hurried = settings.model_copy(update={"lease_s": 2})
    parent = context.Process(target=_parent, args=(hurried, job_id, failpoint))
    parent.start()
    parent.join(timeout=120)
    services = Services(settings)
    with services.database.write() as session:
        [shard] = jobs.shards_of(session, job_id)
        found = shard.status
        if found == "running":
            shard.lease_until = shard.not_before
    services.close()
    return found


def _parent(settings, job_id, failpoint):
    """A process of its own, because a failpoint kills the parent too."""
    child = multiprocessing.get_context("spawn").Process(
        target=run, args=(settings, job_id, failpoint)
    )
    child.start()
    child.join()


def state(services, job_id):
    with services.database.read() as session:
        job = jobs.get(session, job_id)
        model = models.get(session, "digits")
        champion = promotions.holder(session, model, "champion")
        history = promotions.history(session, model)
        return job, champion.number, [each.outcome for each in history], history[-1]


def report(services, job_id):
    with services.database.read() as session:
        [artifact] = artifacts.of_job(session, job_id, kind="report")
        assert artifact.name == "verdict.json"
    with services.store.open(artifact.key) as file:
        return json.load(file)


def test_the_better_version_becomes_champion_with_the_jobs_success(services, settings):
    job_id = ask(services, 2, why="nightly")
    run(settings, job_id)
    job, champion, outcomes, entry = state(services, job_id)
    assert (job.status, champion) == ("succeeded", 2)
    assert outcomes == ["set", "promoted"]
    assert (entry.job_id, entry.why) == (job_id, "nightly")
    assert report(services, job_id) == entry.verdict


@pytest.mark.parametrize("number", [2, 3])
def test_the_history_names_who_enqueued_the_job_and_not_the_workers_user(
    services, settings, number
):
    job_id = ask(services, number)
    with services.database.write() as session:
        session.get(Job, job_id).owner = "ann@mill"
    run(settings, job_id)
    *_, entry = state(services, job_id)
    assert (entry.job_id, entry.who) == (job_id, "ann@mill")


def test_a_refusal_fails_the_job_at_once_with_the_numbers_and_is_in_the_history(services, settings):
    job_id = ask(services, 3)
    run(settings, job_id)
    job, champion, outcomes, entry = state(services, job_id)
    assert (job.status, champion) == ("failed", 1)
    assert "digits:3 does not become the champion: kid went from" in job.error
    assert outcomes == ["set", "refused"]
    assert (entry.job_id, entry.verdict["promoted"]) == (job_id, False)
    assert report(services, job_id) == entry.verdict


@pytest.mark.parametrize(
    "failpoint",
    [
        pytest.param("claimed", marks=pytest.mark.slow),
        pytest.param("put_after", marks=pytest.mark.slow),
        pytest.param("committed", marks=pytest.mark.slow),
    ],
)
def test_a_worker_killed_anywhere_promotes_once(services, settings, failpoint):
    job_id = ask(services, 2)
    left = killed(settings, job_id, failpoint)
    assert left == ("succeeded" if failpoint == "committed" else "running")
    run(settings, job_id)
    finalize(services, [job_id])
    job, champion, outcomes, _ = state(services, job_id)
    assert (job.status, champion) == ("succeeded", 2)
    assert outcomes == ["set", "promoted"]


def test_a_champion_that_moves_while_the_gate_decides_is_compared_anew(
    services, settings, monkeypatch
):
    """Version 3 is worse than 1, but gets the alias while 2 is being compared with 1."""
    job_id = ask(services, 2)
    decided = []

    def gather_early(*words):
        decided.append(gather(*words))
        if len(decided) == 1:
            set_champion(services, 3)
        return decided[-1]

    monkeypatch.setattr(promote, "gather", gather_early)
    run(settings, job_id)
    assert state(services, job_id)[1] == 3
    with services.database.write() as session:
        [shard] = jobs.shards_of(session, job_id)
        assert "moved meanwhile" in shard.last_error
        shard.not_before, shard.waiting = shard.dispatched_at or shard.not_before, False
    run(settings, job_id)
    job, champion, outcomes, entry = state(services, job_id)
    assert (job.status, champion) == ("succeeded", 2)
    assert outcomes == ["set", "set", "promoted"]
    assert entry.verdict["champion"] == 3


def test_two_jobs_promote_one_version_once(services, settings):
    first, second = ask(services, 2), ask(services, 2)
    for job_id in (first, second):
        run(settings, job_id)
    job, champion, outcomes, _ = state(services, second)
    assert (job.status, champion) == ("succeeded", 2)
    assert outcomes == ["set", "promoted"]


def test_a_running_job_keeps_the_version_it_started_with(services):
    job = enqueue(services, parse_spec({"kind": "generate", "model": "digits", "count": 1}))
    set_champion(services, 2)
    with services.database.read() as session:
        [shard] = jobs.shards_of(session, job.id)
        assert jobs.get(session, job.id).spec["model"] == "digits:1"
    context = WorkerContext(services, torch.device("cpu"))
    claim = services.database.transact(
        partial(shards.claim, shard_id=shard.id, owner="boot", lease_s=60)
    )
    with services.database.read() as session:
        brief = jobs.briefs(session, [claim.job_id])[claim.job_id]
    assert context.pinned(brief, claim.work_key).version.number == 1


def test_the_policy_of_a_job_is_kept_complete(services):
    job_id = ask(services, 2, policy={"primary": {"metric": "fid", "margin": 2}})
    with services.database.read() as session:
        policy = jobs.get(session, job_id).spec["policy"]
    assert policy["primary"] == {
        "metric": "fid", "margin": 2.0, "confidence": 0.95, "direction": None
    }  # fmt: skip
    assert policy["resamples"] == 1000
    assert [guard["metric"] for guard in policy["guard"]] == ["memorisation", "class_kl"]


def test_an_evaluation_on_another_dataset_does_not_count(services, settings):
    add_dataset(services, "birds")
    job_id = ask(services, 2, dataset="birds")
    run(settings, job_id)
    job = state(services, job_id)[0]
    assert (job.status, job.error.partition(": run")[0]) == (
        "failed",
        "digits:2 does not become the champion: it has not been evaluated on birds:1",
    )
    with services.database.read() as session:
        assert evaluations.newest(session, models.resolve(session, "digits:2")[1].id) is not None


@pytest.fixture
def verses(tmp_path, services, settings):
    """Two versions of a tiny text model, of which the second is evaluated, on two datasets."""
    for name, line in (
        ("verses", "to be or not to be, that is the question\n\n"),
        ("old", "o\n\n"),
    ):
        path = tmp_path / f"{name}.txt"
        path.write_text(line * 300)  # enough held-out items to be certain of the loss
        add_text(services, name, path)
    params = {"states": 2, "restarts": 1}
    for steps in (1, 5):
        train = {"kind": "train", "family": "hmm", "model": "poet", "dataset": "verses"}
        run_job(services, settings, {**train, "params": params, "max_steps": steps, "seed": 1})
    how = {"kind": "evaluate", "dataset": "verses", "count": 5}
    run_job(services, settings, {**how, "model": "poet:2"})


def run_job(services, settings, spec):
    job_id = enqueue(services, parse_spec(spec)).id
    run(settings, job_id)
    with services.database.read() as session:
        job = jobs.get(session, job_id)
    assert job.status in {"succeeded", "finalizing"}, job.error
    return job_id


@pytest.mark.slow
def test_what_was_never_measured_of_the_champion_is_measured_first(services, settings, verses):
    force = {"kind": "promote", "model": "poet:1", "force": True}
    run_job(services, settings, force)
    guard = {"metric": "loss", "not_worse_by": 100, "dataset": "old"}
    job_id = run_job(
        services, settings, {"kind": "promote", "model": "poet:2", "policy": {"guard": [guard]}}
    )
    with services.database.read() as session:
        ours, theirs = (models.resolve(session, f"poet:{number}")[1] for number in (2, 1))
        pairs = [
            {each.protocol_sha256 for each in evaluations.of_version(session, version.id)}
            for version in (ours, theirs)
        ]
        assert models.resolve(session, "poet")[1].number == 2
        verdict = promotions.history(session, models.get(session, "poet"))[-1].verdict
        names = {each.name for each in artifacts.of_job(session, job_id)}
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) == 2
    assert verdict["guards"][0]["champion"] is not None
    assert {"verdict.json", "poet-1-verses-1-items.npz", "poet-1-old-1-items.npz"} <= names
