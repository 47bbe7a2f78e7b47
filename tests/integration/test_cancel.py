"""Cancelling a running job of any kind: its device work ends soon, and nothing of it commits."""

import time

import pytest
from sqlalchemy import select

from db import artifacts, jobs, models
from db.tables import Evaluation, Promotion
from scheduler.models.aliases import set_alias
from scheduler.models.import_model import import_model
from tests.families.causal import write_base
from tests.families.kit import SENTENCES
from tests.integration.conftest import shared_deployment  # noqa: F401 - a module's own
from tests.integration.test_chains import SIZE, add_words
from tests.integration.test_faults import alive, children
from worker.engine.inspection import inspect

BOUND_S = 10.0  # on a machine that is very busy; 2 s on an idle one

pytestmark = pytest.mark.xdist_group("cancel")


@pytest.fixture(scope="module")
def deployment(shared_deployment):  # noqa: F811 - the fixture
    """A deployment with texts, a text model in two versions, and an imported one."""
    made = shared_deployment
    add_words(made)
    text = {"kind": "train", "family": "gpt", "model": "writer", "dataset": "words", "seed": 0}
    made.succeed(*(made.enqueue(text | {"max_steps": n, "params": SIZE}).id for n in (2, 3)))
    folder = write_base(made.settings.home / "base", SENTENCES)
    import_model(made.services, folder, "base", inspect=inspect)
    return made


ENDLESS = 10**6
WORDS = {"dataset": "words", "seed": 0, "max_steps": ENDLESS}
TEXTS = {"count": 10**5, "params": {"max_tokens": 60}}
OFTEN = {"train gan", "generate texts"}  # the others run with `make slow`
SPECS = {
    "train gan": {"kind": "train", "family": "gan", "model": "g"}
    | {"dataset": "digits", "max_steps": ENDLESS},
    "train gpt": {"kind": "train", "family": "gpt", "model": "t", "params": SIZE} | WORDS,
    "finetune hf": {"kind": "finetune", "model": "base"} | WORDS,
    "generate images": {"kind": "generate", "model": "tiny", "count": ENDLESS},
    "generate texts": {"kind": "generate", "model": "writer"} | TEXTS,
    "generate by hf": {"kind": "generate", "model": "base"} | TEXTS,
    "evaluate": {"kind": "evaluate", "model": "writer", "dataset": "words", "count": 10**5},
}


def started(deployment, job):
    def running():
        return deployment.job(job.id).status == "running" and deployment.progress(job.id)

    deployment.wait("progress", running)


def ended_after(deployment, child, began):
    """Seconds after `began` at which the work was left, or its process ended."""
    folder = deployment.settings.home / "work"  # of work in hand

    def ended():
        return not any(folder.glob("work-*")) or not alive(child)

    deployment.wait("the end of the work", ended, dispatch=False)
    return time.monotonic() - began


def left_behind(deployment, job_id):
    """What a job has committed."""
    with deployment.services.database.read() as session:
        made = [each.name for each in artifacts.of_job(session, job_id) if each.kind != "preview"]
        made += session.scalars(select(Evaluation.id).where(Evaluation.job_id == job_id))
        made += session.scalars(select(Promotion.id).where(Promotion.job_id == job_id))
        return made


def cancel(deployment, job_id):
    assert deployment.services.database.transact(lambda session: jobs.cancel(session, job_id))
    return time.monotonic()


def child_of(deployment):
    (process,) = deployment.processes
    deployment.wait("a child", lambda: children(process.pid), dispatch=False)
    (child,) = children(process.pid)
    return child


@pytest.mark.parametrize(
    "kind",
    [each if each in OFTEN else pytest.param(each, marks=pytest.mark.slow) for each in SPECS],
)
def test_the_device_work_of_a_cancelled_job_ends(deployment, kind):
    job = deployment.enqueue(SPECS[kind])
    started(deployment, job)
    child = child_of(deployment)
    took_s = ended_after(deployment, child, cancel(deployment, job.id))
    print(f"{kind}: device work ended {took_s:.2f} s after the cancellation")
    assert took_s < BOUND_S
    before = left_behind(deployment, job.id)
    deployment.succeed(deployment.generate(1).id)  # the worker takes the next
    assert before == left_behind(deployment, job.id) == []
    assert deployment.job(job.id).status == "cancelled"


def test_a_cancelled_promotion_moves_no_alias(deployment):
    ask = {"kind": "evaluate", "model": "writer:2", "dataset": "words", "count": 4}
    deployment.succeed(deployment.enqueue(ask).id)
    set_alias(deployment.services, "writer:1", "champion", why=None)
    with deployment.held():
        job = deployment.enqueue({"kind": "promote", "model": "writer:2", "dataset": "words"})
        started(deployment, job)
        began = cancel(deployment, job.id)
    deployment.succeed(deployment.generate(1).id)
    assert time.monotonic() - began < 3 * BOUND_S
    assert left_behind(deployment, job.id) == []
    with deployment.services.database.read() as session:
        assert models.resolve(session, "writer@champion")[1].number == 1
