"""Train, evaluate, promote: real workers, killed at each commit of a chain."""

import json
import signal
from itertools import pairwise

import pytest

from db import chains, models
from db.tables import Promotion
from scheduler.datasets.add import add_dataset
from worker.specs import parse_spec

NAMES = {"model": "writer", "dataset": "words"}
SIZE = {"layers": 1, "width": 16, "heads": 2, "context": 64, "batch_size": 4}
TRAIN = {"kind": "train", "family": "gpt", "seed": 0, "max_steps": 4, "params": SIZE, **NAMES}
THEN = [
    {"kind": "evaluate", "against": "writer@champion", "count": 4, **NAMES},
    {"kind": "promote", **NAMES},
]


def add_words(deployment):
    """Add a dataset of texts, which are judged by their model's loss: quickly."""
    rows = [{"text": f"The cat sees the mat {n} times. The dog has the hat."} for n in range(200)]
    file = deployment.settings.home / "words.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    add_dataset(deployment.services, "words", file)


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


@pytest.mark.slow
def test_a_chain_goes_on_though_its_worker_is_killed_after_each_stage(deployment) -> None:
    add_words(deployment)
    made = enqueue_chain(deployment)
    for stage in made:
        victim = deployment.worker(failpoint="committed")
        deployment.wait(f"the end of {stage.kind}", lambda victim=victim: victim.poll() is not None)
        assert victim.poll() == -signal.SIGKILL
    deployment.succeed(*[job.id for job in made])
    assert promotions_of(deployment, "writer") == (["promoted"], 1)
    ended = chain_of(deployment, made[0].id)
    assert all(one.finished_at <= two.started_at for one, two in pairwise(ended))
