"""Train, evaluate, promote: real workers, killed at every commit of a chain."""

import signal
from itertools import pairwise

from db import chains, models
from db.tables import Promotion
from tests.integration.conftest import TINY
from worker.specs import parse_spec

NAMES = {"model": "small", "dataset": "digits"}
TRAIN = {"kind": "train", "family": "vae", "seed": 0, "max_steps": 4, "params": TINY, **NAMES}
THEN = [
    {"kind": "evaluate", "against": "small@champion", "count": 16, **NAMES},
    {"kind": "promote", **NAMES},
]


def enqueue_chain(deployment, **train):
    then = [parse_spec(spec) for spec in THEN]
    first = deployment.enqueue(TRAIN | train, then=then)
    return chain_of(deployment, first.id)


def chain_of(deployment, job_id):
    with deployment.services.database.read() as session:
        return chains.whole(session, job_id)


def promotions_of(deployment, model):
    """The outcomes in the history of a model's aliases, and the version that is the champion."""
    with deployment.services.database.read() as session:
        outcomes = list(
            session.scalars(Promotion.__table__.select().with_only_columns(Promotion.outcome))
        )
        return outcomes, models.resolve(session, f"{model}@champion")[1].number


def test_a_chain_goes_on_though_its_worker_is_killed_after_each_stage(deployment, digits) -> None:
    made = enqueue_chain(deployment)
    for stage in made:
        victim = deployment.worker(failpoint="committed")
        deployment.wait(f"the end of {stage.kind}", lambda victim=victim: victim.poll() is not None)
        assert victim.returncode == -signal.SIGKILL
    deployment.succeed(*[job.id for job in made])
    assert promotions_of(deployment, "small") == (["promoted"], 1)
    ended = chain_of(deployment, made[0].id)
    assert all(one.finished_at <= two.started_at for one, two in pairwise(ended))
